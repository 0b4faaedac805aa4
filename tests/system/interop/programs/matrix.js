#!/usr/bin/node
// SPDX-License-Identifier: MIT
'use strict';
const fs = require('fs');
const fcgi = require('node-fastcgi');

const TYPE = { 'Content-Type': 'application/octet-stream' };

function all(stream, then) {
  const parts = [];
  stream.on('data', (part) => parts.push(part));
  stream.on('end', () => then(Buffer.concat(parts)));
}

function get(req, res) {
  const params = req.socket.params;
  res.writeHead(203, { ...TYPE, 'X-Matrix': 'from the program' });
  for (const name of ['REQUEST_METHOD', 'QUERY_STRING', 'HTTP_X_MATRIX', 'MATRIX_USER']) res.write(`${name}=${params[name] || ''}\n`);
  res.end();
}

function untilGone(req, res, noticed) {
  const timer = setInterval(() => res.write(Buffer.alloc(16384)), 10);
  req.on('aborted', () => { clearInterval(timer); fs.writeFileSync(noticed, ''); });
  res.writeHead(200, TYPE);
}

function holdUntil(path, then) {
  if (fs.existsSync(path)) then();
  else setTimeout(holdUntil, 5, path, then);
}

function respond(req, res) {
  const query = req.socket.params.QUERY_STRING || '';
  const [what, rest] = [query.split('=')[0], query.slice(query.indexOf('=') + 1)];
  if (req.method === 'POST') {
    all(req, (body) => { res.writeHead(200, TYPE); res.end(body); });
  } else if (what === 'big') {
    res.writeHead(200, TYPE);
    res.end('0123456789abcdef'.repeat(65536));
  } else if (what === 'gone') {
    untilGone(req, res, rest);
  } else if (what === 'hold') {
    holdUntil(rest, () => get(req, res));
  } else {
    if (what === 'err') req.socket.errorStream.write(rest + '\n');
    get(req, res);
  }
}

function authorize(req, res) {
  if (req.socket.params.HTTP_X_MATRIX === 'let me in') {
    res.setVariable('MATRIX_USER', 'ada');
    res.allow();
  } else {
    res.writeHead(403);
    res.end('not you\n');
  }
}

function filter(req, res) {
  req._readableState.autoDestroy = false; // node would end the request where STDIN ends, before DATA
  all(req, (body) => all(req.socket.dataStream, (data) => { res.writeHead(200, TYPE); res.end(Buffer.concat([body, data])); }));
}

process.on('SIGTERM', () => process.exit(0));
fcgi.createServer(respond, authorize, filter).listen();
