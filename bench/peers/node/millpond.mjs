// Millpond's worker stream (docs/stream.md) over Node's own WebSocket: as much of a client as a measurement needs.

import { Packr, unpackMultiple } from 'msgpackr';

// Jobs that may come beyond those that handlers have.
const AHEAD = 1_000;
const HEARTBEAT_MS = 10_000;
const packr = new Packr({ useRecords: false });

export async function connect(port) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/stream`);
  socket.binaryType = 'arraybuffer';
  const asked = new Map();
  const subscriptions = new Map();
  let lastId = 0;
  let lastSub = 0;
  let frame = [];

  // Messages of one turn of the loop share a frame.
  const send = (name, id, fields) => {
    if (frame.length === 0) {
      setImmediate(() => {
        const bytes = Buffer.concat(frame);
        frame = [];
        socket.send(bytes);
      });
    }
    frame.push(packr.pack([name, id, fields]));
  };
  const ask = (name, fields) => new Promise((resolve, reject) => {
    lastId += 1;
    asked.set(lastId, { resolve, reject });
    send(name, lastId, fields);
  });

  let welcome;
  const welcomed = new Promise((resolve, reject) => {
    welcome = resolve;
    socket.onerror = (event) => reject(new Error(event.message ?? 'the link broke'));
  });
  socket.onclose = () => {
    for (const { reject } of asked.values()) reject(new Error('the link was closed'));
    asked.clear();
  };
  socket.onmessage = ({ data }) => {
    for (const [name, id, fields] of unpackMultiple(Buffer.from(data))) {
      if (name === 'jobs') subscriptions.get(fields.sub)?.jobs(fields.jobs);
      else if (name === 'ended' || name === 'bye') console.error(name, fields);
      else if (name === 'welcome') welcome(fields);
      else if (id !== 0) {
        const { resolve, reject } = asked.get(id) ?? {};
        asked.delete(id);
        if (name === 'refused') reject?.(new Error(`${fields.code}: ${fields.detail}`));
        else resolve?.(fields);
      }
    }
  };
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.addEventListener('error', reject);
  });
  lastId += 1;
  send('hello', lastId, { version: 1, worker: 'bench', client: 'bench', heartbeat_ms: HEARTBEAT_MS });
  await welcomed;
  setInterval(() => ask('ping', { answered: Math.min(...asked.keys(), lastId + 1) }), HEARTBEAT_MS).unref();

  return {
    producer: async (queue) => ({
      push(bodies, dueMs) {
        const jobs = bodies.map((body, place) => {
          const job = { queue, body: `"${body.slice(0, -2)}"` };
          if (dueMs) job.run_at = dueMs[place];
          return job;
        });
        return ask('push', { jobs });
      },
    }),

    async work(queue, handlers, sink) {
      lastSub += 1;
      const sub = lastSub;
      const waiting = [];
      let [received, running, credit, outcomes] = [0, 0, handlers + AHEAD, []];
      const settle = async () => {
        const batch = outcomes;
        outcomes = [];
        credit += batch.length;
        send('credit', 0, { sub, credit });
        const { results } = await ask('outcomes', { outcomes: batch });
        const refused = results.find((result) => result.code);
        if (refused) throw new Error(`${refused.code}: ${refused.detail}`);
        sink.acknowledged(results.length);
      };
      const handle = async (text) => { sink.handle(text); };
      const run = async (job) => {
        await handle(job.body.toString('latin1', 1));
        if (outcomes.length === 0) setImmediate(settle);
        outcomes.push({ queue, id: job.id, lease_token: job.lease_token, outcome: 'done' });
        running -= 1;
        begin();
      };
      const begin = () => {
        while (running < handlers && waiting.length > 0) {
          running += 1;
          run(waiting.shift());
        }
      };
      subscriptions.set(sub, {
        jobs(jobs) {
          received += jobs.length;
          waiting.push(...jobs);
          begin();
        },
      });
      send('subscribe', 0, { sub, queues: [queue], credit });
      return async () => {
        send('unsubscribe', 0, { sub, received });
        subscriptions.delete(sub);
      };
    },

    async waiting(queue) {
      const answer = await fetch(`http://127.0.0.1:${port}/v1/queues/${queue}`);
      if (answer.status === 404) return 0;
      return (await answer.json()).live;
    },

    // A queue of its own is in nobody's way.
    clear: async () => {},
  };
}
