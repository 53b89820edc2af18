// SPDX-License-Identifier: BSD-3-Clause
// http2.mjs HOST: Node's http2 module: streams at the same time on one session, a body each way, trailers, a reset, and the session lives on.
import { createHash } from 'node:crypto';
import http2 from 'node:http2';

const session = http2.connect('https://' + process.argv[2]);
session.on('error', (e) => { console.error('session', e); process.exit(1); });
function ask(headers, body) {
  return new Promise((resolve, reject) => {
    const s = session.request(headers, { endStream: body === undefined });
    const r = { data: [] };
    s.on('response', (h) => { r.headers = h; });
    s.on('trailers', (h) => { r.trailers = h; });
    s.on('data', (d) => r.data.push(d));
    s.on('error', (e) => { r.error = e.code + ' ' + e.message; });
    s.on('close', () => { r.code = s.rstCode; resolve(r); });
    if (body !== undefined) s.end(body);
    setTimeout(() => reject(new Error('no end of ' + headers[':path'])), 30000).unref();
  });
}
const many = await Promise.all([...Array(50).keys()].map((i) => ask({ ':path': `/echo/${i}`, 'x-i': String(i) })));
const up = await ask({ ':path': '/echo/up', ':method': 'POST' }, Buffer.alloc(1 << 20, 7));
const trailers = await ask({ ':path': '/trailers' });
const reset = await ask({ ':path': '/rst/11' });
const after = await ask({ ':path': '/echo/after' });
const text = (r) => Buffer.concat(r.data).toString();
console.log(JSON.stringify({
  alpn: session.alpnProtocol, tls: session.socket.getProtocol(), issuer: session.socket.getPeerCertificate().issuer,
  order: many.map((r) => Object.fromEntries(JSON.parse(text(r)).headers)['x-i']), up: JSON.parse(text(up)).body, sum: trailers.trailers['x-sum'],
  body: createHash('sha256').update(Buffer.concat(trailers.data)).digest('hex'), reset: reset.code, beginning: text(reset), after: after.headers[':status'],
}));
session.close();
