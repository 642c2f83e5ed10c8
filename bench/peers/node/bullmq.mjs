// BullMQ, on Redis unless somebody says otherwise: `add` and `addBulk`, one worker with as much concurrency as there are handlers, done jobs removed at once.

import { Queue, Worker } from 'bullmq';

export const connect = async (port) => through({ host: '127.0.0.1', port, maxRetriesPerRequest: null });

export function through(connection) {
  const queues = new Map();
  const open = async (name) => {
    if (!queues.has(name)) {
      const queue = new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } });
      queues.set(name, queue);
      await queue.waitUntilReady();
    }
    return queues.get(name);
  };

  return {
    // One connection for all: the client pipelines what is asked at the same time.
    async producer(name) {
      const queue = await open(name);
      return {
        push(bodies, dueMs) {
          const opts = (place) => (dueMs ? { delay: Math.max(0, dueMs[place] - Date.now()) } : undefined);
          if (bodies.length === 1) return queue.add('job', bodies[0], opts(0));
          return queue.addBulk(bodies.map((data, place) => ({ name: 'job', data, opts: opts(place) })));
        },
      };
    },

    async work(name, handlers, sink) {
      const worker = new Worker(name, async (job) => { sink.handle(job.data); }, { connection, concurrency: handlers });
      worker.on('completed', () => sink.acknowledged(1));
      worker.on('error', (error) => console.error(error));
      return () => worker.close();
    },

    async waiting(name) {
      const counts = await (await open(name)).getJobCounts('waiting', 'active', 'delayed', 'prioritized', 'paused');
      return Object.values(counts).reduce((sum, count) => sum + count, 0);
    },

    // Each queue has keys of its own, and removing jobs one by one takes longer than leaving them.
    clear: async () => {},
  };
}
