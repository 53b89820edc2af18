// SPDX-License-Identifier: BSD-3-Clause
// Get HOST VERSION: java.net.http.HttpClient: 20 requests at the same time, a MiB each way, and what the session was.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.MessageDigest;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.HexFormat;
import java.util.concurrent.CompletableFuture;
import java.util.stream.IntStream;

public class Get {
    public static void main(String[] args) throws Exception {
        String url = "https://" + args[0];
        HttpClient c = HttpClient.newBuilder().version(HttpClient.Version.valueOf(args[1])).connectTimeout(Duration.ofSeconds(20)).build();
        // The first answer alone: a client that asks for 20 things at once before it knows of HTTP/2 opens 20 connections.
        HttpResponse<String> first = c.send(ask(url + "/echo/first").build(), HttpResponse.BodyHandlers.ofString());
        var text = HttpResponse.BodyHandlers.ofString();
        var many = IntStream.range(0, 20).mapToObj(i -> c.sendAsync(ask(url + "/echo/" + i).build(), text)).toList();
        CompletableFuture.allOf(many.toArray(new CompletableFuture[0])).join();
        int good = 0;
        for (int i = 0; i < 20; i++)
            if (many.get(i).join().statusCode() == 200 && many.get(i).join().body().contains("\"/echo/" + i + "\""))
                good++;
        var up = c.send(ask(url + "/echo/up").PUT(HttpRequest.BodyPublishers.ofByteArray(new byte[1 << 20])).build(), text);
        var down = c.send(ask(url + "/bytes/1048576").build(), HttpResponse.BodyHandlers.ofByteArray());
        var session = first.sslSession().get();
        String sum = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(down.body()));
        System.out.printf("{\"version\": \"%s\", \"good\": %d, \"up\": %b, \"down\": \"%s\", \"tls\": \"%s\", \"issuer\": \"%s\"}%n",
            down.version(), good, up.body().contains("\"body\": 1048576"), sum, session.getProtocol(),
            ((X509Certificate) session.getPeerCertificates()[0]).getIssuerX500Principal());
    }

    static HttpRequest.Builder ask(String url) {
        return HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(30));
    }
}
