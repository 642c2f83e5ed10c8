// The load for a peer whose client is in Node: verbs as lines of JSON on the standard input, answers on the output.
//
//   node driver.mjs PEER PORT
//
// A peer is a module with `connect(port)`; what that returns has
//   producer(queue)                  → { push(bodies, dueMs) }: resolves when all are acknowledged; `dueMs` is undefined or has a time for each
//   work(queue, handlers, sink)      → stop(); calls `sink.handle(body)` for each job and `sink.acknowledged(count)`; `sink.jobs` will come
//   waiting(queue)                   → jobs that the peer counts
//   clear(queue)                     → forgets them

import { createInterface } from 'node:readline';

const STAMP = 16;
const nowUs = () => Math.round((performance.timeOrigin + performance.now()) * 1e3);
const body = (bytes, stampUs) => String(stampUs).padStart(STAMP, '0').padEnd(bytes, 'x');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const [peer, port] = process.argv.slice(2);
const { connect } = await import(`./${peer}.mjs`);
const client = await connect(Number(port));

const verbs = {
  async push({ queue, jobs, batch, producers, bytes, when }) {
    const callers = [];
    for (let place = 0; place < producers; place++) callers.push(await client.producer(queue));
    const begun = performance.now();
    const begunUs = nowUs();
    await Promise.all(callers.map(async (caller, place) => {
      if (when === 'now') {
        let left = Math.floor(jobs / producers) + (place < jobs % producers ? 1 : 0);
        const bodies = Array(Math.min(batch, left)).fill(body(bytes, nowUs()));
        for (; left > 0; left -= Math.min(batch, left)) await caller.push(bodies.slice(0, Math.min(batch, left)));
      } else if (when.paced) {
        for (let job = place; job < jobs; job += producers) {
          // One that is handed in late counts from when it should have been; timers here are good for a millisecond.
          const after = (job * 1e3) / when.paced.per_second;
          let stampUs = Math.round(begunUs + after * 1e3);
          const early = after - (performance.now() - begun);
          if (early > 0) {
            await sleep(early);
            stampUs = nowUs();
          }
          await caller.push([body(bytes, stampUs)]);
        }
      } else {
        for (let job = place; job < jobs; job += producers * batch) {
          const dueUs = [];
          for (let of = job; of < jobs && dueUs.length < batch; of += producers) {
            // Whole milliseconds are what clients here take.
            dueUs.push(Math.ceil((when.due.at_us + Math.floor((of * 1e6) / jobs)) / 1e3) * 1e3);
          }
          await caller.push(dueUs.map((due) => body(bytes, due)), dueUs.map((due) => due / 1e3));
        }
      }
    }));
    return (performance.now() - begun) / 1e3;
  },

  async work({ queue, jobs, handlers, stamped }) {
    let begun;
    let done = 0;
    let full;
    const filled = new Promise((resolve) => { full = resolve; });
    const late_us = [];
    const stop = await client.work(queue, handlers, {
      jobs,
      handle(text) {
        // From the first handler, so that starting a worker is not counted.
        begun ??= performance.now();
        if (stamped) late_us.push(Math.max(0, nowUs() - Number(text.slice(0, STAMP))));
      },
      acknowledged(count) {
        done += count;
        if (done >= jobs) full((performance.now() - begun) / 1e3);
      },
    });
    const watch = setTimeout(() => full(undefined), 60_000);
    const seconds = await filled;
    clearTimeout(watch);
    await stop();
    if (seconds === undefined) throw new Error(`${done} of ${jobs} jobs were done within a minute`);
    return { seconds, late_us };
  },

  waiting: ({ queue }) => client.waiting(queue),

  async clear({ queue }) {
    await client.clear(queue);
    return null;
  },
};

// A failure is the answer to its call; what is left over would otherwise end the process and all other calls.
process.on('unhandledRejection', (error) => console.error(error));

for await (const line of createInterface({ input: process.stdin })) {
  const { id, verb, fields } = JSON.parse(line);
  const answer = (rest) => process.stdout.write(`${JSON.stringify({ id, ...rest })}\n`);
  verbs[verb](fields).then((ok) => answer({ ok }), (error) => answer({ error: String(error?.message ?? error) }));
}
process.exit(0);
