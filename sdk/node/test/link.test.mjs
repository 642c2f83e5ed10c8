import assert from 'node:assert/strict';
import { once } from 'node:events';
import test from 'node:test';
import { Away, connect } from '@millpond/client';
import { link, serve, until } from './server.mjs';

/** `MILLPOND_CUTS=200` for a long look. */
const CUTS = Number(process.env.MILLPOND_CUTS ?? 20);

test(`after ${CUTS} cuts of the link nothing is lost and nothing is done twice`, async (t) => {
  const server = await serve(t);
  const proxy = await link(t, server.port);
  const pond = await connect(proxy.url);
  t.after(() => pond.close({ timeout: 0 }));
  const queue = pond.queue('q');
  const ran = new Map();
  const worker = queue.worker((job) => {
    ran.set(job.body, (ran.get(job.body) ?? 0) + 1);
    return new Promise((resolve) => setTimeout(resolve, 5));
  }, { lease: '10s' });
  let completed = 0;
  worker.on('completed', () => { completed += 1; });
  const pushed = [];
  let [next, busy] = [0, true];
  // Load from before the first cut until after the last.
  const load = Promise.all(Array.from({ length: 8 }, async () => {
    while (busy) {
      const body = next++;
      await queue.push(body);
      pushed.push(body);
    }
  }));
  const took = [];
  const kinds = [() => proxy.cut(), () => proxy.deaf({ up: true }), () => proxy.deaf({ down: true }), () => proxy.deaf({ up: true, down: true })];
  for (let number = 0; number < CUTS; number++) {
    const began = performance.now();
    kinds[number % kinds.length]();
    // The network heals; the connection that was dead does not.
    if (number % kinds.length > 0) {
      await once(pond.stream, 'down');
      proxy.deaf();
    }
    const body = `after ${number}`;
    await queue.push(body);
    pushed.push(body);
    await until(() => ran.has(body), 'the job behind the cut', 10_000);
    took.push(performance.now() - began);
  }
  busy = false;
  await load;
  await until(() => completed >= pushed.length, 'the end of all jobs');
  assert.deepEqual(pushed.filter((body) => ran.get(body) !== 1), [], 'jobs that did not run exactly once');
  took.sort((a, b) => a - b);
  t.diagnostic(`back within ${took.at(CUTS / 2).toFixed(0)} ms in the median, ${took.at(-1).toFixed(0)} ms in all, ${pushed.length} jobs`);
});

test('what was under way when the server was killed is done once', async (t) => {
  const server = await serve(t);
  const pond = await connect(server.url);
  t.after(() => pond.close({ timeout: 0 }));
  const queue = pond.queue('q');
  let runs = 0;
  let go;
  const gate = new Promise((resolve) => { go = resolve; });
  const worker = queue.worker(async () => { runs += 1; await gate; return 'kept'; });
  const { id } = await queue.push(1);
  await until(() => runs === 1);
  await server.kill();
  const pushing = Promise.all([queue.push(2, { idempotencyKey: 'two' }), queue.push(3)]);
  await server.start();
  await pushing;
  const ends = [];
  worker.on('completed', (job) => ends.push(job.body));
  go();
  await until(() => ends.length === 3, 'three ends');
  assert.equal((await queue.job(id)).result, 'kept');
  assert.equal(runs, 3);
});

test('a server that stops gets no call lost', async (t) => {
  const server = await serve(t);
  const pond = await connect(server.url);
  t.after(() => pond.close({ timeout: 0 }));
  const queue = pond.queue('q');
  const ends = new Set();
  queue.worker((job) => job.body).on('completed', (_, result) => ends.add(result));
  const pushes = [];
  const push = (number) => pushes.push(queue.push(number, { idempotencyKey: `k${number}` }));
  for (let number = 0; number < 500; number++) push(number);
  const stopped = server.kill('SIGTERM');
  for (let number = 500; number < 1_000; number++) push(number);
  await stopped;
  await server.start();
  await Promise.all(pushes);
  await until(() => ends.size === 1_000, 'all jobs');
});

test('calls fail when the server stays away, and go on when it is back', async (t) => {
  const server = await serve(t);
  const pond = await connect(server.url, { patience: '2s' });
  t.after(() => pond.close({ timeout: 0 }));
  const queue = pond.queue('q');
  await queue.push(0);
  await server.kill();
  await once(pond.stream, 'down').catch(() => {});
  await assert.rejects(queue.push(1), Away);
  await server.start();
  await once(pond.stream, 'up');
  await queue.push(2);
  assert.equal((await queue.counts()).waiting, 2);
});

test('the stream below takes bytes and leases by hand', async (t) => {
  const server = await serve(t);
  const pond = await connect(server.url);
  t.after(() => pond.close());
  const { stream } = pond;
  const { jobs: [{ id }] } = await stream.push([{ queue: 'raw', body: '{"a":1}' }], { key: 'once' });
  let take;
  const taken = new Promise((resolve) => { take = resolve; });
  const subscription = stream.subscribe({ queues: ['raw'], credit: 1, lease: '1s', renew: false, jobs: ([job]) => take(job) });
  const job = await taken;
  assert.deepEqual([job.id, Buffer.from(job.body).toString()], [id, '{"a":1}']);
  const lease = { queue: 'raw', id, lease_token: job.lease_token };
  const { results: [renewed] } = await stream.request('renew', { leases: [lease], lease_ms: 60_000 });
  assert.ok(renewed.lease_until > job.lease_until);
  assert.equal((await stream.settle(job, { outcome: 'done', result: '7' })).state, 'completed');
  assert.equal((await stream.request('outcomes', { outcomes: [{ ...lease, outcome: 'done' }] })).results[0].code, 'stale_lease');
  await subscription.leave();
  await assert.rejects(stream.request('push', { jobs: [{ queue: 'no spaces', body: '1' }] }), { code: 'bad_request' });
  await stream.push([{ queue: 'raw', body: '2' }]);
});

test('a push that is given up is not made later', async (t) => {
  const server = await serve(t);
  const pond = await connect(server.url);
  t.after(() => pond.close());
  const queue = pond.queue('q');
  await queue.configure({ capacity: { jobs: 1, on_full: 'block' } });
  await queue.push(1);
  const controller = new AbortController();
  const push = queue.push(2, { wait: '1h', signal: controller.signal });
  await until(async () => (await queue.info()).producers_waiting === 1, 'the producer to wait');
  controller.abort(new Error('no longer'));
  await assert.rejects(push, /no longer/);
  await until(async () => (await queue.info()).producers_waiting === 0, 'the producer to leave', 5_000);
  assert.equal((await queue.counts()).waiting, 1);
});
