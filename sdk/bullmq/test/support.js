// A real server for a test, and what every test does with BullMQ.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Queue, QueueEvents, Worker } from 'bullmq';
import { millpond } from '@millpond/bullmq';

const BINARY = process.env.MILLPOND_BIN ?? 'millpond';
const EVENT_MS = 10_000;

/** A server of its own; `stop` and `start` keep its data and its address. */
export async function serve(t, ...options) {
  const data = await mkdtemp(join(tmpdir(), 'millpond-bullmq-'));
  const server = { url: undefined, child: undefined, closing: [] };
  server.start = async () => {
    const listen = server.url ? new URL(server.url).host : '127.0.0.1:0';
    const child = spawn(BINARY, ['serve', '--listen', listen, '--data', data, ...options], { stdio: ['ignore', 'pipe', 'inherit'] });
    server.child = child;
    for await (const line of createInterface({ input: child.stdout })) {
      server.url ??= /http:\/\/[\d.]+:\d+/.exec(line)?.[0];
      if (line.includes('http://')) break;
    }
    child.stdout.resume();
  };
  server.kill = async () => {
    server.child.kill('SIGKILL');
    await once(server.child, 'exit');
  };
  await server.start();
  t.after(async () => {
    for (const thing of server.closing.reverse()) await thing.close();
    if (server.child.exitCode === null && server.child.signalCode === null) await server.kill();
    await rm(data, { recursive: true });
  });
  server.get = async (path) => (await fetch(server.url + path)).json();
  return server;
}

let queues = 0;

/** A queue with its worker and its events, all on one pond, closed when the test ends. */
export function bench(server, options = {}) {
  queues += 1;
  const name = `test-${queues}`;
  const factory = millpond(server.url, options);
  const kept = (thing) => {
    thing.on('error', () => {});
    server.closing.push(thing);
    return thing;
  };
  return {
    name,
    path: `/v1/queues/${name}`,
    queue: kept(new Queue(name, { connection: {} }, factory)),
    async events(more = {}) {
      const events = kept(new QueueEvents(name, { connection: {}, ...more }, factory));
      await events.waitUntilReady();
      return events;
    },
    worker: (handler, more = {}) => kept(new Worker(name, handler, { connection: {}, ...more }, factory)),
  };
}

/** The arguments of an event, in good time. */
export async function soon(emitter, event) {
  return once(emitter, event, { signal: AbortSignal.timeout(EVENT_MS) });
}

/** So many events, each as its first argument. */
export async function some(emitter, event, count) {
  const heard = [];
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${heard.length} of ${count} × ${event}`)), EVENT_MS);
    emitter.on(event, (first) => {
      heard.push(first);
      if (heard.length === count) {
        clearTimeout(timer);
        resolve();
      }
    });
  });
  return heard;
}
