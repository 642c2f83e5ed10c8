import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { Queue, setDefaultBackendFactory, UnrecoverableError, Worker } from 'bullmq';
import { millpond } from '@millpond/bullmq';
import { bench, serve, some, soon } from './support.js';

test('one line puts BullMQ on a pond', async (t) => {
  const server = await serve(t);
  setDefaultBackendFactory(millpond(server.url.replace('http:', 'millpond:')));
  t.after(() => setDefaultBackendFactory());
  const queue = new Queue('paint', { connection: {} });
  const worker = new Worker('paint', async (job) => `${job.name} ${job.data.colour}`, { connection: {} });
  server.closing.push(queue, worker);
  const completed = soon(worker, 'completed');
  await queue.add('wall', { colour: 'red' });
  assert.equal((await completed)[1], 'wall red');
});

test('the package can be required', () => {
  const required = createRequire(import.meta.url)('@millpond/bullmq');
  assert.deepEqual(Object.keys(required).sort(), ['Away', 'Refused', 'Unsupported', 'millpond']);
});

test('a job of BullMQ is a job of the pond', async (t) => {
  const server = await serve(t);
  const { queue, path } = bench(server);
  const job = await queue.add('wall', { colour: 'red', list: [1, null, 'ü'] }, { attempts: 3, jobId: 'w/1', delay: 60_000 });
  assert.equal(job.id, 'w/1');
  const view = await server.get(`${path}/jobs/w%2F1`);
  assert.deepEqual(view.body, { colour: 'red', list: [1, null, 'ü'] });
  assert.deepEqual([view.meta.name, view.attempts, view.state], ['wall', 4, 'delayed']);
  const back = await queue.getJob('w/1');
  assert.deepEqual([back.name, back.data, back.opts.attempts, back.timestamp], ['wall', job.data, 3, job.timestamp]);
  assert.equal(await queue.getJob('nobody'), undefined);
});

test('the same id twice is one job', async (t) => {
  const { queue } = bench(await serve(t));
  for (const colour of ['red', 'blue']) await queue.add('wall', { colour }, { jobId: 'once' });
  assert.deepEqual((await queue.getJob('once')).data, { colour: 'red' });
  assert.equal(await queue.getWaitingCount(), 1);
});

test('jobs run in the order in which they were added, also if nobody waited for an answer', async (t) => {
  const { queue, worker } = bench(await serve(t));
  await Promise.all(Array.from({ length: 200 }, (_, place) => queue.add('n', place)));
  await queue.addBulk([{ name: 'n', data: 200 }, { name: 'n', data: 201 }]);
  const done = some(worker(async (job) => job.data), 'completed', 202);
  assert.deepEqual((await done).map((job) => job.data), Array.from({ length: 202 }, (_, place) => place));
});

test('a bulk is added as a whole or not at all, and does not take others with it', async (t) => {
  const { queue } = bench(await serve(t));
  const large = 'x'.repeat(2 << 20);
  const [before, bulk, after] = await Promise.allSettled([
    queue.add('small', 1),
    queue.addBulk([{ name: 'small', data: 2 }, { name: 'large', data: large }]),
    queue.add('small', 3),
  ]);
  assert.deepEqual([before.status, bulk.status, after.status], ['fulfilled', 'rejected', 'fulfilled']);
  assert.equal(bulk.reason.name, 'Refused');
  assert.equal(await queue.getWaitingCount(), 2);
});

test('the more urgent job runs first', async (t) => {
  const { queue, worker } = bench(await serve(t));
  for (const priority of [3, 1, undefined, 2]) await queue.add('n', priority ?? 0, { priority });
  const done = some(worker(async () => {}), 'completed', 4);
  assert.deepEqual((await done).map((job) => job.data), [0, 1, 2, 3]);
});

test('a job that fails is tried again, after its backoff, with what it failed of', async (t) => {
  const setup = bench(await serve(t));
  const events = await setup.events();
  const delayed = soon(events, 'delayed');
  const worker = setup.worker(async (job) => {
    if (job.attemptsMade < 2) throw new TypeError(`no ${job.attemptsMade}`);
    return job.attemptsStarted;
  });
  const job = await setup.queue.add('n', 1, { attempts: 3, backoff: { type: 'fixed', delay: 20 } });
  assert.equal(await job.waitUntilFinished(events, 10_000), 3);
  assert.equal((await delayed)[0].jobId, job.id);
  const back = await setup.queue.getJob(job.id);
  assert.deepEqual([back.attemptsMade, back.stacktrace.length], [3, 2]);
  assert.match(back.stacktrace[1], /TypeError: no 1\n +at /);
  await worker.close();
});

test('a job that has failed for good says why, and can be tried again', async (t) => {
  const server = await serve(t);
  const setup = bench(server);
  const events = await setup.events();
  let broken = true;
  const worker = setup.worker(async () => {
    if (broken) throw new UnrecoverableError('never');
  });
  const job = await setup.queue.add('n', 1, { attempts: 5 });
  await assert.rejects(job.waitUntilFinished(events, 10_000), /never/);
  assert.equal(await job.getState(), 'failed');
  const view = await server.get(`${setup.path}/jobs/${job.id}`);
  assert.deepEqual([view.state, view.error.kind, view.error.message], ['dead', 'UnrecoverableError', 'never']);
  broken = false;
  const completed = soon(worker, 'completed');
  await job.retry();
  await completed;
  assert.equal(await job.isCompleted(), true);
});

test('a delayed job waits, and starts at once when it is promoted', async (t) => {
  const { queue, worker } = bench(await serve(t));
  const job = await queue.add('n', 1, { delay: 3_600_000 });
  assert.deepEqual([await job.getState(), await queue.getDelayedCount()], ['delayed', 1]);
  const completed = soon(worker(async () => 'early'), 'completed');
  await job.promote();
  assert.equal((await completed)[1], 'early');
  await assert.rejects(job.promote(), { code: -3 });
});

test('a queue that is paused hands nothing out, also before its first job', async (t) => {
  const { queue, worker } = bench(await serve(t));
  await queue.pause();
  assert.equal(await queue.isPaused(), true);
  const started = [];
  const busy = worker(async (job) => started.push(job.data));
  await queue.add('n', 1);
  assert.equal(await busy.getNextJob('t', { block: false }), undefined);
  const completed = soon(busy, 'completed');
  assert.deepEqual(started, []);
  await queue.resume();
  await completed;
  assert.deepEqual(started, [1]);
});

test('a worker that closes finishes what it has and takes nothing more', async (t) => {
  const { queue, worker } = bench(await serve(t));
  let go;
  const held = new Promise((resolve) => { go = resolve; });
  const busy = worker(async () => held);
  const active = soon(busy, 'active');
  const job = await queue.add('n', 1);
  await active;
  const closed = busy.close();
  const late = await queue.add('n', 2);
  go('done');
  await closed;
  assert.deepEqual([await job.getState(), await late.getState()], ['completed', 'waiting']);
});

test('a job can be taken and ended by hand, by whoever has its token', async (t) => {
  const { queue, worker } = bench(await serve(t));
  const hand = worker(undefined, { autorun: false });
  await queue.addBulk([{ name: 'n', data: 1 }, { name: 'n', data: 2 }]);
  const job = await hand.getNextJob('mine');
  assert.equal(await job.getState(), 'active');
  await assert.rejects(job.moveToCompleted('x', 'other'), { code: -6 });
  assert.equal(await job.extendLock('other', 30_000), 0);
  assert.equal(await job.extendLock('mine', 30_000), 1);
  const [next, id] = await job.moveToCompleted({ sum: 1 }, 'mine', true);
  assert.equal(next.data, '2');
  assert.deepEqual((await queue.getJob(job.id)).returnvalue, { sum: 1 });
  await assert.rejects(job.moveToCompleted('x', 'mine'), { code: -2 });
  const other = await queue.getJob(id);
  await other.moveToFailed(new Error('no'), 'mine');
  assert.equal((await queue.getJob(id)).failedReason, 'no');
});

test('a job whose worker is gone goes to another, and fails the second time', async (t) => {
  const setup = bench(await serve(t));
  const events = await setup.events();
  const hand = setup.worker(undefined, { autorun: false, lockDuration: 200 });
  const job = await setup.queue.add('n', 1);
  for (const stalls of [0, 1]) {
    const stalled = soon(events, stalls ? 'failed' : 'stalled');
    const taken = await hand.getNextJob('gone');
    assert.deepEqual([taken.id, taken.stalledCounter, taken.attemptsMade], [job.id, stalls, 0]);
    assert.equal((await stalled)[0].jobId, job.id);
  }
  assert.equal(await job.getState(), 'failed');
});

test('as many jobs run at a time as the whole queue may', async (t) => {
  const { queue, worker } = bench(await serve(t));
  await queue.setGlobalConcurrency(1);
  assert.equal(await queue.getGlobalConcurrency(), 1);
  let [running, most] = [0, 0];
  const busy = worker(async () => {
    most = Math.max(most, ++running);
    await null;
    running -= 1;
  }, { concurrency: 5 });
  const done = some(busy, 'completed', 20);
  await queue.addBulk(Array.from({ length: 20 }, () => ({ name: 'n', data: 1 })));
  await done;
  assert.equal(most, 1);
  await queue.setGlobalRateLimit(100, 1_000);
  assert.deepEqual(await queue.getGlobalRateLimit(), { max: 100, duration: 1_000 });
  assert.equal(await queue.removeGlobalConcurrency(), 1);
  assert.deepEqual([await queue.getGlobalConcurrency(), (await queue.getGlobalRateLimit()).max], [null, 100]);
});

test('a job is deduplicated while another of its key is there, or for a time', async (t) => {
  const { queue, worker } = bench(await serve(t));
  const add = (deduplication) => queue.add('n', 1, { deduplication });
  const first = await add({ id: 'simple' });
  assert.equal((await add({ id: 'simple' })).id, first.id);
  const throttled = await add({ id: 'throttle', ttl: 60_000 });
  assert.equal((await queue.getJob(throttled.id)).deduplicationId, 'throttle');
  await some(worker(async () => {}), 'completed', 2);
  assert.notEqual((await add({ id: 'simple' })).id, first.id);
  assert.equal((await add({ id: 'throttle', ttl: 60_000 })).id, throttled.id);
});
