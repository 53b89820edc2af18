// SPDX-License-Identifier: BSD-3-Clause
// fetch.mjs HOST: Node's fetch (undici, HTTP/1.1): requests at the same time, a streamed body, gzip, a stream read in pieces.
import { createHash } from 'node:crypto';

const url = 'https://' + process.argv[2];
const paths = await Promise.all([...Array(20).keys()].map(async (i) => (await (await fetch(`${url}/echo/${i}`)).json()).path));
async function* pieces() {
  for (let i = 0; i < 10; i++) yield Buffer.alloc(10000, i);
}
const up = await (await fetch(url + '/echo/up', { method: 'POST', body: pieces(), duplex: 'half' })).json();
const gz = Buffer.from(await (await fetch(url + '/gzip')).arrayBuffer());
const sha = createHash('sha256');
const down = await fetch(url + '/chunked/300000/7777');
for await (const d of down.body) sha.update(d);
const statuses = [];
for (const n of [204, 403, 500]) {
  const r = await fetch(`${url}/status/${n}`);
  await r.arrayBuffer();
  statuses.push(r.status);
}
const gzip = createHash('sha256').update(gz).digest('hex');
console.log(JSON.stringify({ paths, up: up.body, chunks: up.chunks.length, gzip, stream: sha.digest('hex'), statuses }));
