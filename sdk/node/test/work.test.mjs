import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { Away, Done, Fail, JobFailed, RateLimited, Refused, Retry, Snooze, Wait, connect } from '@millpond/client';
import { block, serve, until } from './server.mjs';

/** A server and a connection to it. */
async function pond(t, options) {
  const server = await serve(t);
  const pond = await connect(server.url, options);
  t.after(() => pond.close({ timeout: 0 }));
  return Object.assign(pond, { server });
}

test('a job that is pushed is done, and its result is kept', async (t) => {
  const p = await pond(t);
  const emails = p.queue('emails');
  const receipt = await emails.push({ to: 'ada' }, { priority: 'high', tags: ['vip'], meta: { from: 'test' } });
  assert.equal(receipt.state, 'waiting');
  const worker = emails.worker(async (job) => {
    await job.progress({ percent: 50 });
    await job.log('sending to', job.body.to);
    return { sent: job.body.to, priority: job.priority, tags: job.tags, meta: job.meta };
  });
  const [job, result] = await once(worker, 'completed');
  assert.equal(job.id, receipt.id);
  assert.deepEqual(result, { sent: 'ada', priority: 50, tags: ['vip'], meta: { from: 'test' } });
  const view = await emails.job(receipt.id);
  assert.equal(view.state, 'completed');
  assert.deepEqual(view.result, result);
  const { lines } = await p.http.call('GET', `/v1/jobs/${receipt.id}/log`);
  assert.equal(lines[0].text, 'sending to ada');
});

test('many jobs of several queues are each done once', async (t) => {
  const p = await pond(t);
  const [a, b] = [p.queue('a'), p.queue('b')];
  const ran = new Map();
  const count = (job) => { ran.set(`${job.queue}${job.body}`, (ran.get(`${job.queue}${job.body}`) ?? 0) + 1); };
  const worker = p.worker({ a: count, b: async (job) => count(job) }, { concurrency: 8 });
  let completed = 0;
  worker.on('completed', () => { completed += 1; });
  await a.pushAll(Array.from({ length: 3_000 }, (_, number) => number));
  await Promise.all(Array.from({ length: 3_000 }, (_, number) => b.push(number)));
  await until(() => completed === 6_000, 'the end of all jobs');
  assert.equal(ran.size, 6_000);
  assert.ok([...ran.values()].every((times) => times === 1));
});

test('what a handler throws says what becomes of the job', async (t) => {
  const p = await pond(t);
  const q = p.queue('q', { attempts: 1 });
  const ends = {
    error: () => { throw new TypeError('broken'); },
    fail: () => { throw new Fail('no address', { kind: 'BadAddress' }); },
    retry: () => { throw new Retry('busy', { after: '1h' }); },
    snooze: () => { throw new Snooze('1h'); },
    done: () => new Done('with', { push: [p.queue('next').prepare('follow')] }),
    limited: () => { throw new RateLimited('1h', { limit: 'api' }); },
    badSpan: () => { throw new Snooze('soon'); },
    tooLarge: () => 'x'.repeat(2 << 20),
    cyclic: () => { const self = {}; self.self = self; return self; },
  };
  const worker = q.worker((job) => ends[job.body](), { concurrency: 2 });
  for (const name of Object.keys(ends)) await q.push(name, { id: name, attempts: name === 'retry' ? 2 : 1, limits: name === 'limited' ? ['api'] : [] });
  const state = async (id) => (await q.job(id)).state;
  const expected = {
    error: 'dead', fail: 'dead', retry: 'retrying', snooze: 'delayed', done: 'completed', badSpan: 'dead', tooLarge: 'dead', cyclic: 'dead',
  };
  for (const [id, wanted] of Object.entries(expected)) await until(async () => (await state(id)) === wanted, `${id} to be ${wanted}`);
  const error = async (id) => (await q.history(id)).findLast((entry) => entry.error)?.error;
  assert.equal((await error('fail')).kind, 'BadAddress');
  assert.equal((await error('error')).kind, 'TypeError');
  assert.equal((await p.queue('next').counts()).waiting, 1);
  await worker.stop();
});

test('a handler that blocks the loop for two leases keeps its job', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  let runs = 0;
  const worker = q.worker(() => { runs += 1; block(2_000); return runs; }, { lease: '1s', concurrency: 1 });
  const other = await connect(p.server.url);
  t.after(() => other.close());
  const { id } = await q.push(1);
  const rival = new Promise((resolve) => other.queue('q').worker(resolve, { lease: '1s' }));
  const first = await Promise.race([once(worker, 'completed'), rival.then(() => 'rival')]);
  // Either may have got it, but only one may have run it.
  if (first !== 'rival') assert.equal(first[1], 1);
  const history = await q.history(id);
  assert.equal(history.filter((entry) => entry.to === 'active').length, 1);
});

test('a handler that hangs beyond maxBlocked loses its job to another', async (t) => {
  const server = await serve(t);
  // It hangs in a process of its own: this one has to look.
  const script = `
    import { connect } from '@millpond/client';
    const pond = await connect(${JSON.stringify(server.url)}, { maxBlocked: '1s' });
    pond.queue('q').worker(() => { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); }, { lease: '1s' });
  `;
  const hanging = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit', cwd: import.meta.dirname });
  t.after(() => hanging.kill('SIGKILL'));
  const p = await connect(server.url);
  t.after(() => p.close());
  const q = p.queue('q');
  const { id } = await q.push(1);
  await until(async () => (await q.job(id)).state === 'active', 'the job to start');
  const [job] = await once(q.worker(() => {}), 'completed');
  assert.equal(job.id, id);
});

test('a cancelled job hears it, and its outcome does not count', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  const { id } = await q.push(1);
  const started = Promise.withResolvers?.() ?? deferred();
  let reason;
  const worker = q.worker(async (job) => {
    started.resolve();
    await new Promise((resolve) => job.signal.addEventListener('abort', resolve));
    reason = job.signal.reason;
    return 'too late';
  });
  await started.promise;
  const lost = once(worker, 'lost');
  await q.cancel(id);
  assert.equal((await lost)[1], 'cancelled');
  await until(() => reason);
  assert.equal(reason.code, 'cancelled');
  assert.equal((await q.job(id)).state, 'cancelled');
});

test('stop lets handlers end and gives the others back', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  await q.pushAll([1, 2, 3, 4, 5]);
  const gate = deferred();
  const started = deferred();
  const worker = q.worker(async () => { started.resolve(); await gate.promise; }, { concurrency: 2 });
  await started.promise;
  const stopped = worker.stop();
  setTimeout(gate.resolve, 50);
  await stopped;
  assert.equal(worker.active, 0);
  const counts = await q.counts();
  assert.deepEqual([counts.active, counts.waiting + counts.completed], [0, 5]);
  assert.ok(counts.completed >= 1);
});

test('stop with a timeout calls handlers off', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  const { id } = await q.push(1);
  const started = deferred();
  const worker = q.worker(async (job) => {
    started.resolve();
    await new Promise((_, reject) => job.signal.addEventListener('abort', () => reject(new Snooze('1h'))));
  });
  await started.promise;
  await worker.stop({ timeout: 1 });
  assert.equal((await q.job(id)).state, 'delayed');
});

test('steps are done once, and a job sleeps, waits for signals and for children without a worker', async (t) => {
  const p = await pond(t);
  const orders = p.queue('orders', { backoff: { fixed: 1 } });
  p.queue('parcels').worker((job) => `parcel of ${job.body}`);
  let [charges, tries] = [0, 0];
  const worker = orders.worker(async (job) => {
    const charge = await job.step('charge', () => `charge ${(charges += 1)}`);
    await job.sleep('nap', 1);
    const by = await job.waitForSignal('approved', { timeout: '1h' });
    const parcel = await job.child('ship', p.queue('parcels').prepare(job.id));
    if ((tries += 1) === 1) throw new Error('once more');
    const nobody = await job.waitForSignal('late', { timeout: 1 });
    return [charge, by, parcel, nobody ?? 'nobody'];
  });
  await orders.push({}, { id: 'o-1' });
  await until(async () => (await orders.job('o-1')).state === 'suspended', 'the wait for the signal');
  await orders.signal('o-1', 'approved', 'ada');
  const [, result] = await once(worker, 'completed');
  assert.deepEqual(result, ['charge 1', 'ada', 'parcel of o-1', 'nobody']);
  assert.equal(charges, 1);
});

test('a job that waits for jobs is given their results', async (t) => {
  const p = await pond(t);
  const images = p.queue('images');
  images.worker((job) => job.body * 2);
  const worker = p.queue('pages').worker((job) => {
    if (!job.children) throw new Wait({ jobs: { a: images.prepare(1), b: images.prepare(2) } });
    return [job.children.total, ...job.children.members.map((member) => `${member.name}=${member.result}`)];
  });
  await p.queue('pages').push(0);
  const [, result] = await once(worker, 'completed');
  assert.deepEqual(result, [2, 'a=2', 'b=4']);
});

test('refusals are typed errors with their codes', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  await q.push(1, { unique: { key: 'k', onConflict: 'reject' } });
  const refused = (code) => (error) => error instanceof Refused && error.code === code;
  await assert.rejects(q.push(2, { unique: { key: 'k', onConflict: 'reject' } }), refused('unique_conflict'));
  await assert.rejects(q.push(1, { attempts: 1_000_000 }), refused('invalid'));
  await assert.rejects(q.cancel('nothing'), refused('unknown_job'));
  await assert.rejects(p.http.call('GET', '/v1/nothing'), refused('unknown_route'));
  assert.throws(() => p.queue('no spaces'), TypeError);
  await assert.rejects(q.push(1, { delay: 'soon' }), TypeError);
  await assert.rejects(q.push(1, { dealy: 1 }), TypeError);
  assert.equal(await q.job('nothing'), undefined);
  assert.deepEqual(await p.queue('none').counts(), {});
});

test('a push with an idempotency key is one push', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  const [a, b] = await Promise.all([q.push(1, { idempotencyKey: 'k' }), q.push(1, { idempotencyKey: 'k' })]);
  assert.equal(a.id, b.id);
  assert.equal((await q.counts()).waiting, 1);
});

test('a queue is paused, resumed, explained and configured', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  await q.configure({ attempts: 1 });
  await q.pause();
  const { id } = await q.push(1);
  assert.match((await q.explain(id)).summary, /pause/);
  await q.resume();
  const worker = q.worker(() => { throw new Error('no'); });
  await once(worker, 'failed');
  await worker.stop();
  assert.equal((await q.redrive(id)).state, 'waiting');
  assert.equal((await q.remove(id)).removed, true);
});

test('a body may be bytes', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  await q.push(new Uint8Array([0, 255, 7]), { contentType: 'image/png' });
  const [job] = await once(q.worker(() => {}), 'completed');
  assert.deepEqual([...job.body], [0, 255, 7]);
});

test('a result is waited for', async (t) => {
  const p = await pond(t);
  const q = p.queue('q');
  const [{ id: good }, { id: bad }] = [await q.push(20), await q.push(0, { attempts: 1 })];
  const ends = Promise.all([
    q.result(good),
    assert.rejects(q.result(bad), (error) => error instanceof JobFailed && error.state === 'dead'),
  ]);
  q.worker(({ body }) => { if (!body) throw new Error('nothing'); return body + 1; });
  assert.equal((await ends)[0], 21);
  assert.equal(await q.result(good), 21);
  const { id } = await q.push(1, { delay: '1h' });
  await assert.rejects(q.result(id, { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
});

test('a server that is not there is away after as long as calls wait', async () => {
  const began = performance.now();
  await assert.rejects(connect('millpond://127.0.0.1:1', { patience: 300 }), Away);
  assert.ok(performance.now() - began >= 300);
});

test('a wrong token is refused at once', async (t) => {
  const server = await serve(t, '--token', 'right-right-right-right-right');
  await assert.rejects(connect(server.url, { token: 'wrong' }), (error) => error instanceof Refused && error.code === 'unauthorized');
  const p = await connect(server.url, { token: 'right-right-right-right-right' });
  await p.queue('q').push(1);
  assert.equal((await p.queue('q').counts()).waiting, 1);
  await p.close();
});

test('a server under TLS is believed by its certificate alone', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millpond-tls-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const words = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost'];
  const made = spawnSync('openssl', [...words, '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', cert]);
  if (made.status !== 0) return t.skip('openssl is not here');
  const server = await serve(t, '--tls-cert', cert, '--tls-key', key);
  const url = `millpond+tls://localhost:${server.port}`;
  const p = await connect(url, { ca: readFileSync(cert) });
  await p.queue('q').push(1);
  assert.equal((await p.queue('q').counts()).waiting, 1);
  await p.close();
  await assert.rejects(connect(url), (error) => error instanceof Refused && error.code === 'not_trusted');
});

test('require gives the same classes as import', async () => {
  const required = createRequire(import.meta.url)('@millpond/client');
  assert.equal(required.Retry, Retry);
  assert.equal(required.connect, connect);
});

function deferred() {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }));
  return all;
}
