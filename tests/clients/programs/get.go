// SPDX-License-Identifier: BSD-3-Clause

// get URL h1|h2: Go's net/http: 20 requests at the same time, a MiB each way, trailers both ways, and what the connection was.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	url, version := os.Args[1], os.Args[2]
	t := &http.Transport{ForceAttemptHTTP2: version == "h2", MaxConnsPerHost: 4}
	if version == "h1" {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	c := &http.Client{Transport: t, Timeout: 60 * time.Second}
	out := map[string]interface{}{}
	do := func(method, path string, body io.Reader, trailer http.Header) (*http.Response, []byte) {
		q, err := http.NewRequest(method, url+path, body)
		fatal(err)
		q.Trailer = trailer
		r, err := c.Do(q)
		fatal(err)
		data, err := io.ReadAll(r.Body)
		fatal(err)
		r.Body.Close()
		return r, data
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for i := 0; i < 20; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			path := fmt.Sprintf("/echo/%d", i)
			_, data := do("GET", path, nil, nil)
			var f struct{ Path string }
			fatal(json.Unmarshal(data, &f))
			mu.Lock()
			defer mu.Unlock()
			if f.Path == path {
				good++
			}
		}(i)
	}
	wg.Wait()
	out["good"] = good
	r, data := do("PUT", "/echo/up", io.MultiReader(bytes.NewReader(make([]byte, 1<<20))), http.Header{"X-End": {"of it"}})
	var f struct {
		Body     int
		Trailers [][]string
	}
	fatal(json.Unmarshal(data, &f))
	out["up"], out["proto"], out["trailers_up"] = f.Body, r.Proto, f.Trailers
	out["tls"], out["issuer"] = r.TLS.Version == tls.VersionTLS13, r.TLS.PeerCertificates[0].Issuer.String()
	path, name := "/chunked/300000/7777", "X-Sum"
	if version == "h2" {
		path = "/trailers"
	}
	r, data = do("GET", path, nil, nil)
	out["sum"], out["trailer"] = fmt.Sprintf("%x", sha256.Sum256(data)), r.Trailer.Get(name)
	_, data = do("GET", "/gzip", nil, nil)
	out["gzip"] = len(data)
	text, err := json.Marshal(out)
	fatal(err)
	fmt.Println(string(text))
}
