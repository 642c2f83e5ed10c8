import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bench, serve, some, soon } from './support.js';

test('events tell the life of a job, with progress and result', async (t) => {
  const setup = bench(await serve(t));
  const events = await setup.events();
  const told = [];
  for (const name of ['added', 'waiting', 'active', 'progress', 'completed', 'drained']) {
    events.on(name, (fields) => told.push([name, fields]));
  }
  const job = await setup.queue.add('wall', 1);
  setup.worker(async (job) => {
    await job.updateProgress({ percent: 50 });
    return { coats: 2 };
  });
  await job.waitUntilFinished(events, 10_000);
  const of = (name) => told.find(([other]) => other === name)?.[1];
  assert.deepEqual(of('added'), { jobId: job.id, name: 'wall' });
  assert.deepEqual(of('active'), { jobId: job.id, prev: 'waiting' });
  assert.deepEqual(of('progress'), { jobId: job.id, data: { percent: 50 } });
  assert.deepEqual(of('completed'), { jobId: job.id, returnvalue: { coats: 2 }, prev: 'active' });
  assert.deepEqual(told.map(([name]) => name).filter((name) => name !== 'drained'), ['added', 'waiting', 'active', 'progress', 'completed']);
});

test('events go on behind the last one that was read', async (t) => {
  const setup = bench(await serve(t));
  const first = await setup.events();
  const added = soon(first, 'added');
  const one = await setup.queue.add('n', 1);
  const [, id] = await added;
  const two = await setup.queue.add('n', 2);
  const second = await setup.events({ lastEventId: id, autorun: false });
  const heard = some(second, 'added', 1);
  void second.run();
  assert.deepEqual((await heard).map(({ jobId }) => jobId), [two.id]);
  assert.notEqual(one.id, two.id);
});

test('a result too large for an event is read from the job', async (t) => {
  const setup = bench(await serve(t));
  const events = await setup.events();
  setup.worker(async () => 'x'.repeat(100_000));
  const completed = soon(events, 'completed');
  await setup.queue.add('n', 1);
  assert.equal((await completed)[0].returnvalue.length, 100_000);
});

test('a job that is not kept tells its result all the same', async (t) => {
  const setup = bench(await serve(t));
  const events = await setup.events();
  const completed = soon(events, 'completed');
  const removed = soon(events, 'removed');
  setup.worker(async () => 7);
  const job = await setup.queue.add('n', 1, { removeOnComplete: true });
  assert.equal((await completed)[0].returnvalue, 7);
  await removed;
  assert.equal(await job.getState(), 'unknown');
});

test('the queue keeps as many finished jobs as the last of them said', async (t) => {
  const server = await serve(t);
  const setup = bench(server);
  const worker = setup.worker(async (job) => {
    if (job.data % 2) throw new Error('odd');
  }, { removeOnFail: { count: 1, age: 3_600 } });
  const done = Promise.all([some(worker, 'completed', 5), some(worker, 'failed', 5)]);
  await setup.queue.addBulk(Array.from({ length: 10 }, (_, data) => ({ name: 'n', data, opts: { removeOnComplete: 3 } })));
  await done;
  assert.deepEqual(await setup.queue.getJobCounts('completed', 'failed'), { completed: 3, failed: 1 });
  const { settings } = await server.get(setup.path);
  assert.deepEqual([settings.keep_completed.count, settings.keep_dead], [3, { age_ms: 3_600_000, count: 1 }]);
});

test('a handler writes a log', async (t) => {
  const { queue, worker } = bench(await serve(t));
  const completed = soon(worker(async (job) => [await job.log('one'), await job.log('two')]), 'completed');
  const job = await queue.add('n', 1);
  assert.deepEqual((await completed)[1], [1, 2]);
  assert.deepEqual(await queue.getJobLogs(job.id), { logs: ['one', 'two'], count: 2 });
  assert.deepEqual(await queue.getJobLogs(job.id, 0, 0, false), { logs: ['two'], count: 2 });
});

test('a queue is emptied, and then is as if new', async (t) => {
  const setup = bench(await serve(t));
  const { queue } = setup;
  await queue.addBulk([{ name: 'n', data: 1 }, { name: 'n', data: 2, opts: { delay: 60_000 } }]);
  await queue.drain();
  assert.deepEqual(await queue.getJobCounts('wait', 'delayed'), { wait: 0, delayed: 1 });
  const gone = await queue.add('n', 3);
  assert.equal(await gone.remove(), undefined);
  await queue.add('n', 4);
  const hand = setup.worker(undefined, { autorun: false });
  const held = await hand.getNextJob('t');
  await assert.rejects(queue.obliterate(), /active jobs/);
  await queue.obliterate({ force: true });
  assert.equal(await held.getState(), 'unknown');
  assert.deepEqual(Object.values(await queue.getJobCounts()).filter((count) => count > 0), []);
  assert.equal(await queue.isPaused(), false);
});

test('jobs are listed from the oldest and from the newest', async (t) => {
  const { queue } = bench(await serve(t));
  await queue.addBulk([1, 2, 3, 4].map((data) => ({ name: 'n', data })));
  const data = async (...range) => (await queue.getWaiting(...range)).map((job) => job.data);
  assert.deepEqual(await data(), [1, 2, 3, 4]);
  assert.deepEqual(await data(1, 2), [2, 3]);
  assert.deepEqual((await queue.getJobs(['waiting'], 0, 1, false)).map((job) => job.data), [4, 3]);
});

test('what is older than its grace is cleaned away, so many at a time', async (t) => {
  const { queue, worker } = bench(await serve(t));
  await queue.addBulk([1, 2, 3].map((data) => ({ name: 'n', data })));
  await queue.add('n', 4, { delay: 60_000 });
  const busy = worker(async (job) => {
    if (job.data === 2) throw new Error('two');
  });
  await Promise.all([some(busy, 'completed', 2), soon(busy, 'failed')]);
  assert.deepEqual(await queue.clean(60_000, 0), []);
  assert.equal((await queue.clean(0, 1)).length, 1);
  assert.equal((await queue.clean(0, 0)).length, 1);
  assert.deepEqual((await queue.clean(0, 0, 'failed')).length, 1);
  assert.equal((await queue.clean(0, 0, 'delayed')).length, 1);
  assert.deepEqual(Object.values(await queue.getJobCounts()).filter((count) => count > 0), []);
});
