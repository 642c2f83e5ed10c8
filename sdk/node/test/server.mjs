// The real binary, started and killed by tests, and a link to it that can be cut.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, connect as dial } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const BINARY = process.env.MILLPOND_BIN ?? 'millpond';

/** Waits until the condition holds; what it gave. */
export async function until(condition, what = 'the condition', ms = 20_000) {
  const end = performance.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`${what} did not come within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A server with a directory of its own, that is gone when the test has ended. */
export async function serve(test, ...words) {
  const folder = mkdtempSync(join(tmpdir(), 'millpond-node-'));
  const server = { folder, port: 0 };
  server.start = async () => {
    const listen = `127.0.0.1:${server.port}`;
    const options = ['serve', '--log', 'error', '--listen', listen, '--data', join(folder, 'data'), ...words];
    const child = spawn(BINARY, options, { stdio: ['ignore', 'pipe', 'inherit'] });
    server.child = child;
    for await (const line of createInterface({ input: child.stdout })) {
      const [, port] = /:\/\/127\.0\.0\.1:(\d+)/.exec(line) ?? [];
      if (!port) continue;
      server.port = Number(port);
      server.url = `millpond://127.0.0.1:${port}`;
      child.stdout.resume();
      return server;
    }
    throw new Error('the server did not start');
  };
  server.kill = async (signal = 'SIGKILL') => {
    if (server.child.exitCode !== null || server.child.signalCode !== null) return;
    server.child.kill(signal);
    await once(server.child, 'exit');
  };
  test.after(async () => {
    await server.kill();
    rmSync(folder, { recursive: true, force: true });
  });
  return server.start();
}

/** A link to a port that a test cuts (`cut`) or lets go dead in one direction or both (`deaf`). */
export async function link(test, port) {
  const pairs = new Set();
  const lock = { up: false, down: false };
  const proxy = createServer((client) => {
    const server = dial(port, '127.0.0.1');
    const pair = [client, server];
    pairs.add(pair);
    client.on('data', (bytes) => lock.up || server.write(bytes));
    server.on('data', (bytes) => lock.down || client.write(bytes));
    for (const socket of pair) {
      socket.on('error', () => {});
      socket.on('close', () => {
        pairs.delete(pair);
        // Whoever is deaf does not hear that the other side has gone.
        if (!lock.up && !lock.down) for (const other of pair) other.destroy();
      });
    }
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const cut = () => {
    for (const pair of [...pairs]) for (const socket of pair) socket.destroy();
  };
  test.after(() => {
    cut();
    proxy.close();
  });
  return {
    url: `millpond://127.0.0.1:${proxy.address().port}`,
    cut,
    /** New connections are dead, too, until it is called without anything. */
    deaf({ up = false, down = false } = {}) {
      const was = lock.up || lock.down;
      Object.assign(lock, { up, down });
      if (was && !up && !down) cut();
    },
  };
}

/** Blocks the loop of this thread. */
export function block(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
