// Graphile Worker: `addJob`, `addJobs`, and a pool with a local queue and completions in batches, as its page on performance advises.

import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import { counted, open } from './postgres.mjs';

// Jobs that a pool locks ahead, with many handlers and with one.
const AHEAD = 500;

export async function connect(port) {
  const pgPool = await open(port);
  const logger = new Logger(() => () => {});
  const utils = await makeWorkerUtils({ pgPool, logger });
  await utils.migrate();
  const waiting = async (queue) => {
    const { rows } = await pgPool.query('select count(*)::int as count from graphile_worker.jobs where task_identifier = $1', [queue]);
    return rows[0].count;
  };

  return {
    producer: async (queue) => ({
      push(bodies, dueMs) {
        const runAt = (place) => (dueMs ? new Date(dueMs[place]) : undefined);
        if (bodies.length === 1) return utils.addJob(queue, { body: bodies[0] }, { runAt: runAt(0) });
        return utils.addJobs(bodies.map((body, place) => ({ identifier: queue, payload: { body }, runAt: runAt(place) })));
      },
    }),

    async work(queue, handlers, sink) {
      const handle = await counted(() => waiting(queue), sink);
      const runner = await run({
        pgPool,
        logger,
        concurrency: handlers,
        noHandleSignals: true,
        taskList: { [queue]: async ({ body }) => { handle(body); } },
        preset: { worker: { localQueue: { size: AHEAD }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
      });
      return () => runner.stop();
    },

    waiting,

    // All queues share a table.
    async clear() {
      await pgPool.query('truncate graphile_worker._private_jobs');
    },
  };
}
