// SPDX-License-Identifier: BSD-3-Clause
// ws.cjs URL: the ws package: texts, a MiB, a ping, an orderly close with a code.
const { WebSocket } = require('ws');

const ws = new WebSocket(process.argv[2]);
const out = { echo: [] };
ws.on('open', () => { ws.send('one'); });
ws.on('message', (data, binary) => {
  if (binary) {
    out.size = data.length;
    ws.ping('there?');
  } else {
    out.echo.push(data.toString());
    ws.send(out.echo.length < 3 ? 'grüße ' + out.echo.length : Buffer.alloc(1 << 20, 1));
  }
});
ws.on('pong', (data) => { out.pong = data.toString(); ws.close(4001, 'done'); });
ws.on('close', (code) => { out.code = code; console.log(JSON.stringify(out)); });
ws.on('error', (e) => { console.error(e); process.exit(1); });
setTimeout(() => { console.error('no end', out); process.exit(1); }, 30000).unref();
