import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { FlowProducer, QueueEventsProducer } from 'bullmq';
import { millpond } from '@millpond/bullmq';
import { bench, serve, some } from './support.js';

test('what cannot be translated is refused by its name, and adds nothing', async (t) => {
  const setup = bench(await serve(t));
  const { queue } = setup;
  const options = {
    lifo: true,
    priority: 156,
    attempts: 10_001,
    parent: { id: 'p', queue: 'q' },
    failParentOnFailure: true,
    removeOnSomething: 1,
  };
  for (const [name, value] of Object.entries(options)) {
    const refused = (error) => error.name === 'Unsupported' && error.feature.includes(name) && error.message.includes('not supported on Millpond');
    await assert.rejects(queue.add('n', 1, { [name]: value }), refused, name);
    await assert.rejects(queue.addBulk([{ name: 'n', data: 1 }, { name: 'n', data: 2, opts: { [name]: value } }]), refused, name);
  }
  for (const mode of ['replace', 'extend', 'keepLastIfActive']) {
    const feature = `the job option deduplication.${mode}`;
    await assert.rejects(queue.add('n', 1, { deduplication: { id: 'd', ttl: 1_000, [mode]: true } }), { name: 'Unsupported', feature });
  }
  await assert.rejects(queue.add('n', 1, { telemetry: { metadata: 'x'.repeat(5_000) } }), /more than 4 KiB/);
  assert.equal(await queue.count(), 0);
  for (const worker of [{ limiter: { max: 1, duration: 1 } }, { metrics: { maxDataPoints: 1 } }, { maxStalledCount: 3 }]) {
    assert.throws(() => setup.worker(async () => {}, worker), { name: 'Unsupported' });
  }
});

test('calls that are not translated are refused', async (t) => {
  const server = await serve(t);
  const { queue, name } = bench(server);
  const job = await queue.add('n', 1, { delay: 60_000 });
  const flows = new FlowProducer({ connection: {} }, millpond(server.url));
  const producer = new QueueEventsProducer(name, { connection: {} }, millpond(server.url));
  server.closing.push(flows, producer);
  const calls = {
    clean: () => queue.clean(0, 10, 'active'),
    metrics: () => queue.getMetrics('completed'),
    rateLimit: () => queue.rateLimit(10),
    scheduler: () => queue.upsertJobScheduler('s', { every: 1_000 }),
    deduplication: () => queue.getDeduplicationJobId('d'),
    priorities: () => queue.getCountsPerPriority([1]),
    data: () => job.updateData({ a: 1 }),
    progress: () => job.updateProgress(10),
    delay: () => job.changeDelay(5),
    priority: () => job.changePriority({ priority: 1 }),
    clearLogs: () => job.clearLogs(),
    children: () => job.getDependencies(),
    flow: () => flows.add({ name: 'p', queueName: name, children: [{ name: 'c', queueName: name }] }),
    event: () => producer.publishEvent({ eventName: 'e' }),
    trim: () => queue.trimEvents(1),
  };
  for (const [what, call] of Object.entries(calls)) await assert.rejects(call(), { name: 'Unsupported' }, what);
});

test('nothing is lost or done twice when the server is killed', async (t) => {
  const server = await serve(t);
  const { queue, worker } = bench(server);
  const done = some(worker(async (job) => job.data, { concurrency: 4, lockDuration: 1_000, drainDelay: 1, runRetryDelay: 50 }), 'completed', 60);
  const add = (from) => Promise.all(Array.from({ length: 20 }, (_, place) => queue.add('n', from + place)));
  await add(0);
  await server.kill();
  const during = add(20);
  await server.start();
  await during;
  await add(40);
  const seen = new Set((await done).map((job) => job.data));
  assert.equal(seen.size, 60);
  assert.deepEqual([await queue.getCompletedCount(), await queue.count()], [60, 0]);
});

/** Something between a client and the server: `judge` says of an answer whether it comes through. */
async function between(t, server, judge) {
  const proxy = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    const { host, connection, ...headers } = request.headers;
    const call = fetch(server.url + request.url, { method: request.method, headers, body: body.length > 0 ? body : undefined });
    // The server may end first.
    const answer = await call.catch(() => undefined);
    if (!answer) return response.destroy();
    const text = await answer.text();
    if (judge(request, body.toString(), text, response)) response.writeHead(answer.status, { 'content-type': 'application/json' }).end(text);
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  t.after(() => proxy.close());
  return { ...server, url: `http://127.0.0.1:${proxy.address().port}` };
}

test('a job that was on its way to a worker that closes goes back at once', async (t) => {
  let held;
  const on = new Promise((resolve) => { held = resolve; });
  const proxied = await between(t, await serve(t), ({ url }, asked, answer) => {
    if (url !== '/v1/fetch' || JSON.parse(asked).wait_ms === 0 || JSON.parse(answer).jobs.length === 0) return true;
    held();
    return false;
  });
  const { queue, worker } = bench(proxied);
  const idle = worker(async () => {});
  await once(idle, 'drained');
  const job = await queue.add('n', 1);
  await on;
  await idle.close();
  assert.equal(await job.getState(), 'waiting');
});

test('an outcome whose answer was lost is not reported as lost itself', async (t) => {
  let lost = 0;
  const proxied = await between(t, await serve(t), ({ url }, _asked, _answer, response) => {
    if (url !== '/v1/outcomes' || lost % 2 === 1) return true;
    lost += 1;
    response.destroy();
    return false;
  });
  const { queue, worker } = bench(proxied);
  const busy = worker(async (job) => {
    lost = 0;
    if (job.data === 'bad') throw new Error('bad');
  });
  const errors = [];
  busy.on('error', (error) => errors.push(error));
  const ended = Promise.all([some(busy, 'completed', 1), some(busy, 'failed', 1)]);
  await queue.addBulk([{ name: 'n', data: 'good' }, { name: 'n', data: 'bad' }]);
  await ended;
  assert.deepEqual(errors, []);
  assert.deepEqual(await queue.getJobCounts('completed', 'failed'), { completed: 1, failed: 1 });
});

test('a call gives up on a server that is away, and says that it is', async (t) => {
  const server = await serve(t);
  const { queue } = bench(server, { patience: 200 });
  await queue.waitUntilReady();
  await server.kill();
  await assert.rejects(queue.add('n', 1), { name: 'Away', code: 'ECONNREFUSED' });
});

test('a token is asked for, and let in', async (t) => {
  const server = await serve(t, '--token', 'secret-of-more-than-16-letters');
  const without = bench(server);
  await assert.rejects(without.queue.add('n', 1), { name: 'Refused', status: 401 });
  const { queue } = bench(server, { token: 'secret-of-more-than-16-letters' });
  assert.ok((await queue.add('n', 1)).id);
});

test('an address that is none is refused at once', () => {
  assert.throws(() => millpond('redis://127.0.0.1:6379'), /begins with millpond:/);
});
