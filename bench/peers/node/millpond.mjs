// Millpond by its own package for Node.

import { connect as dial } from '@millpond/client';

export async function connect(port) {
  const pond = await dial(`millpond://127.0.0.1:${port}`);
  return {
    producer: async (name) => {
      const queue = pond.queue(name);
      return {
        push(bodies, dueMs) {
          // In JSON a text has two bytes more.
          return pond.pushAll(bodies.map((body, place) => queue.prepare(body.slice(0, -2), dueMs && { runAt: dueMs[place] })));
        },
      };
    },

    async work(name, handlers, sink) {
      const worker = pond.queue(name).worker(async (job) => { sink.handle(job.body); }, { concurrency: handlers });
      worker.on('completed', () => sink.acknowledged(1));
      return () => worker.stop();
    },

    async waiting(name) {
      return (await pond.queue(name).info())?.live ?? 0;
    },

    // A queue of its own is in nobody's way.
    clear: async () => {},
  };
}
