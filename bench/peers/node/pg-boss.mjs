// pg-boss: `send`, `insert`, and workers that fetch full batches one behind the other and are woken by NOTIFY.

import { PgBoss } from 'pg-boss';
import { counted, open, options } from './postgres.mjs';

// Jobs of one fetch, and workers at most: each has a connection while it fetches.
const BATCH = 100;
const WORKERS_MAX = 8;

export async function connect(port) {
  const pool = await open(port);
  const boss = new PgBoss({ ...options(port), supervise: false, schedule: false, useListenNotify: true });
  boss.on('error', (error) => console.error(error));
  await boss.start();
  const made = new Map();
  const make = (queue) => {
    if (!made.has(queue)) made.set(queue, boss.createQueue(queue, { notify: true }));
    return made.get(queue);
  };
  const waiting = async (queue) => {
    const { rows } = await pool.query("select count(*)::int as count from pgboss.job where name = $1 and state < 'completed'", [queue]);
    return rows[0].count;
  };

  return {
    async producer(queue) {
      await make(queue);
      return {
        push(bodies, dueMs) {
          const startAfter = (place) => (dueMs ? new Date(dueMs[place]) : undefined);
          if (bodies.length === 1) return boss.send(queue, { body: bodies[0] }, { startAfter: startAfter(0) });
          return boss.insert(queue, bodies.map((body, place) => ({ data: { body }, startAfter: startAfter(place) })));
        },
      };
    },

    async work(queue, handlers, sink) {
      await make(queue);
      const handle = await counted(() => waiting(queue), sink);
      const options = {
        batchSize: BATCH, localConcurrency: Math.min(handlers, WORKERS_MAX), burstWhenBatchFull: true, pollingIntervalSeconds: 0.5,
        // NOTIFY does not tell of jobs that become due.
        notifyPollingIntervalSeconds: 0.5,
      };
      await boss.work(queue, options, async (jobs) => {
        for (const { data } of jobs) handle(data.body);
      });
      return () => boss.offWork(queue);
    },

    waiting,

    async clear(queue) {
      await boss.deleteAllJobs(queue);
    },
  };
}
