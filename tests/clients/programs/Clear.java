// SPDX-License-Identifier: BSD-3-Clause
// Clear HOST: java.net.http.HttpClient as it is out of the box, on http://: it offers HTTP/2 by Upgrade with every first request.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

public class Clear {
    public static void main(String[] args) throws Exception {
        HttpClient c = HttpClient.newHttpClient();
        var text = HttpResponse.BodyHandlers.ofString();
        var get = c.send(ask(args[0], "/echo/java").build(), text);
        var put = c.send(ask(args[0], "/echo/put").PUT(HttpRequest.BodyPublishers.ofString("hello")).build(), text);
        System.out.printf("{\"status\": [%d, %d], \"version\": \"%s\", \"path\": %b, \"up\": %b}%n", get.statusCode(), put.statusCode(),
            get.version(), get.body().contains("\"/echo/java\""), put.body().contains("\"body\": 5"));
    }

    static HttpRequest.Builder ask(String host, String path) {
        return HttpRequest.newBuilder(URI.create("http://" + host + path)).timeout(Duration.ofSeconds(30));
    }
}
