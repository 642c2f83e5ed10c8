import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { hostname } from 'node:os';
import type {
  DependenciesOpts, FinishedStatus, IQueueBackend, JobJson, JobProgress, JobState, JobType, KeepJobs, MinimalJob,
  MoveToDelayedOpts, ParentKeyOpts, RetryJobOpts,
} from 'bullmq';
import { Batch } from './batch.js';
import { Code, finished, Refused, Unsupported } from './errors.js';
import { Feed } from './feed.js';
import { fetched, stateOf, STATES, viewed, type FetchedJob, type JobView, type State } from './job.js';
import { Leases } from './leases.js';
import { keep, newJob, queueName } from './options.js';
import type { CallOptions, Pond } from './pond.js';
import type { Shared } from './shared.js';

type Finish = 'moveToFinished' | 'moveToDelayed' | 'retryJob' | 'moveJobFromActiveToWait';
type Next = [JobJson | null, string, number, number];
interface Settled { ok: boolean; code?: string; detail?: string }
interface Ending { outcome: string; error?: ReturnType<typeof failure>; result?: unknown; after_ms?: number }
interface QueueView {
  paused: boolean;
  counts: Record<State, number>;
  settings: { limit: Limit | null };
}
interface Limit {
  concurrency?: number | null;
  rate?: { units: number; per_ms: number; burst?: number } | null;
}

/** A waiting fetch is asked again after this; the server would cut it at 60 s. */
const WAIT_S_MAX = 50;
const FETCH_MAX = 1_000;
const PAGE = 1_000;
const LIST_MAX = 10_000;
/** BullMQ's token of a caller that has none: whoever holds the job. */
const ANY_TOKEN = '0';
const NOTHING: Next = [null, '', 0, 0];
const FLOWS = 'flows are not translated yet; joins of the server are: docs/joins.md';
const SCHEDULERS = 'use a schedule of the server: docs/schedules.md';
const KEYS = 'the server has no look at its unique keys; a job shows its own';

/** The options that a backend looks at, of whichever of BullMQ's classes made it. */
export interface BackendOptions {
  name?: string;
  prefix?: string;
  lockDuration?: number;
  lastEventId?: string;
  removeOnComplete?: KeepJobs;
  removeOnFail?: KeepJobs;
}

/** One queue of a pond, as BullMQ's classes want to see it. Every rule is the server's; here it is only said in its terms. */
export class MillpondBackend extends EventEmitter {
  closing: Promise<void> | undefined;
  readonly minimumBlockTimeout = 0.001;
  readonly maximumBlockTimeout = WAIT_S_MAX;
  readonly keys = {} as IQueueBackend['keys'];
  readonly qualifiedName: string;
  private readonly pond: Pond;
  private readonly leases: Leases;
  private readonly path: string;
  private readonly worker: string;
  private readonly fetches: Batch<string, FetchedJob | undefined>;
  private readonly outcomes: Batch<object, Settled>;
  private feed: Feed | undefined;
  private ready: Promise<void> | undefined;
  private waiting = new AbortController();
  /** A job that was waited for, until BullMQ asks for it. */
  private came: FetchedJob | undefined;

  constructor(
    private readonly shared: Shared,
    name: string,
    private readonly opts: BackendOptions,
    private readonly listens: boolean,
  ) {
    super();
    this.pond = shared.pond;
    this.qualifiedName = queueName(name, opts.prefix);
    this.path = `/v1/queues/${encodeURIComponent(this.qualifiedName)}`;
    this.worker = opts.name ?? `bullmq-${hostname()}-${process.pid}`;
    this.leases = new Leases(this.pond.name, this.qualifiedName);
    this.fetches = new Batch((tokens) => this.fetch(tokens), FETCH_MAX);
    this.outcomes = new Batch((outcomes) => this.settle(outcomes), FETCH_MAX);
  }

  // --- the connection ---

  waitUntilReady(): Promise<void> {
    this.ready ??= this.connect();
    return this.ready;
  }

  private async connect(): Promise<void> {
    await this.shared.ready();
    if (this.listens) await this.events(this.opts.lastEventId).open();
    this.emit('ready');
  }

  close(): Promise<void> {
    this.closing ??= this.leave();
    return this.closing;
  }

  private async leave(): Promise<void> {
    await this.disconnectBlocking();
    await this.giveBack();
    this.feed?.close();
    this.emit('close');
  }

  async disconnect(): Promise<void> {
    await this.disconnectBlocking();
    this.feed?.close();
  }

  async setName(): Promise<void> {}

  forQueue(name: string, prefix = this.opts.prefix): IQueueBackend {
    const opts = prefix === undefined ? this.opts : { ...this.opts, prefix };
    return new MillpondBackend(this.shared, name, opts, false);
  }

  toKey(type: string): string {
    return `${this.qualifiedName}:${type}`;
  }

  parseNodeKey(key: string): { prefix: string; queueName: string; id: string } {
    const at = key.lastIndexOf(':');
    return { prefix: '', queueName: key.slice(0, at), id: key.slice(at + 1) };
  }

  clientName(suffix = ''): string {
    return `${this.qualifiedName}${suffix}`;
  }

  async getClientList(): Promise<string[]> {
    return [];
  }

  // --- adding ---

  async addJob(job: JobJson, jobId: string, parent?: ParentKeyOpts): Promise<string> {
    if (parent?.parentKey) throw new Unsupported('the job option parent', FLOWS);
    const [id] = await this.shared.pushes.add([newJob(this.qualifiedName, job, jobId)]);
    return id!;
  }

  async addJobs(entries: { job: JobJson; jobId: string; parentKeyOpts?: ParentKeyOpts }[]): Promise<string[]> {
    if (entries.some(({ parentKeyOpts }) => parentKeyOpts?.parentKey)) throw new Unsupported('the job option parent', FLOWS);
    if (entries.length === 0) return [];
    return this.shared.pushes.add(entries.map(({ job, jobId }) => newJob(this.qualifiedName, job, jobId)));
  }

  addFlow(): Promise<never> {
    return refuse('FlowProducer.add', FLOWS);
  }

  // --- taking ---

  async moveToActive(token: string): Promise<Next> {
    const came = this.came;
    this.came = undefined;
    // A worker that pauses or closes asks once more; it shall take nothing new.
    const job = came ?? (this.closing || this.waiting.signal.aborted ? undefined : await this.fetches.add(token));
    if (!job) return NOTHING;
    this.leases.take(job.id, token, job.lease_token);
    return [fetched(job, this.worker), job.id, 0, 0];
  }

  private async fetch(tokens: string[]): Promise<(FetchedJob | undefined)[]> {
    return this.ask(tokens.length, 0);
  }

  private async ask(max: number, wait_ms: number, more: CallOptions = {}): Promise<FetchedJob[]> {
    const body = { worker: this.worker, queues: [this.qualifiedName], max, wait_ms, lease_ms: this.opts.lockDuration ?? 30_000 };
    const { jobs } = await this.pond.call<{ jobs: FetchedJob[] }>('POST', '/v1/fetch', { body, giveUp: this.waiting.signal, ...more });
    return jobs;
  }

  async waitForJob(blockTimeout: number): Promise<{ member: string; score: number } | null> {
    const { signal } = this.waiting;
    if (this.closing || signal.aborted) return null;
    if (!this.came) {
      const key = randomUUID();
      try {
        [this.came] = await this.ask(1, Math.ceil(Math.min(blockTimeout, WAIT_S_MAX) * 1_000), { signal, key });
      } catch (error) {
        if (!signal.aborted) throw error;
        // A job may have been on its way: by the same key it comes again, and goes back at once.
        [this.came] = await this.ask(1, 0, { key }).catch(() => []);
      }
      if (signal.aborted) await this.giveBack();
    }
    return this.came ? { member: this.came.id, score: 0 } : null;
  }

  async disconnectBlocking(): Promise<void> {
    this.waiting.abort();
    await this.giveBack();
  }

  async reconnectBlocking(): Promise<void> {
    this.waiting = new AbortController();
  }

  private async giveBack(): Promise<void> {
    const job = this.came;
    this.came = undefined;
    if (!job) return;
    const body = { worker: this.worker, outcomes: [{ ...this.lease(job.id, job.lease_token), outcome: 'snooze', after_ms: 0 }] };
    // If the server is away its lease ends by itself.
    await this.pond.call('POST', '/v1/outcomes', { body, giveUp: this.waiting.signal }).catch(() => {});
  }

  // --- ending an attempt ---

  async moveToCompleted<T, R, N extends string>(
    job: MinimalJob<T, R, N>, value: R, remove: boolean | number | KeepJobs | undefined, token: string, fetchNext: boolean,
  ): Promise<{ result: void | Next; finishedOn: number }> {
    await this.retain('keep_completed', remove ?? this.opts.removeOnComplete);
    await this.end(job.id!, token, { outcome: 'done', result: value ?? null }, 'moveToFinished');
    return this.ended(job.id!, remove ?? this.opts.removeOnComplete, token, fetchNext);
  }

  async moveToFailed<T, R, N extends string>(
    job: MinimalJob<T, R, N>, reason: string, remove: boolean | number | KeepJobs | undefined, token: string, fetchNext: boolean,
    fields?: Record<string, unknown>,
  ): Promise<{ result: void | Next; finishedOn: number }> {
    await this.retain('keep_dead', remove ?? this.opts.removeOnFail);
    await this.end(job.id!, token, { outcome: 'fail', error: failure(reason, fields) }, 'moveToFinished');
    return this.ended(job.id!, remove ?? this.opts.removeOnFail, token, fetchNext);
  }

  async moveToDelayed(jobId: string, _now: number, delay: number, token = ANY_TOKEN, opts: MoveToDelayedOpts = {}): Promise<Next | []> {
    const outcome = opts.skipAttempt
      ? { outcome: 'snooze', after_ms: delay }
      : { outcome: 'retry', after_ms: delay, error: failure(opts.fieldsToUpdate?.['failedReason'], opts.fieldsToUpdate) };
    await this.end(jobId, token, outcome, 'moveToDelayed');
    const next = opts.fetchNext && !this.closing ? await this.moveToActive(token) : NOTHING;
    return next[0] ? next : [];
  }

  async moveJobFromActiveToWait(jobId: string, token = ANY_TOKEN): Promise<number> {
    await this.end(jobId, token, { outcome: 'snooze', after_ms: 0 }, 'moveJobFromActiveToWait');
    return 0;
  }

  async retryJob(jobId: string, lifo: boolean, token = ANY_TOKEN, opts: RetryJobOpts = {}): Promise<void> {
    if (lifo) throw new Unsupported('the job option lifo', 'jobs of a priority run in the order in which they came');
    const error = failure(opts.fieldsToUpdate?.['failedReason'], opts.fieldsToUpdate);
    await this.end(jobId, token, { outcome: 'retry', after_ms: 0, error }, 'retryJob');
  }

  moveToWaitingChildren(): Promise<never> {
    return refuse('job.moveToWaitingChildren', FLOWS);
  }

  /** Leases that end are the server's affair, and it does not wait for a worker to ask. */
  async moveStalledJobsToWait(): Promise<string[]> {
    return [];
  }

  private lease(id: string, lease_token: number): { queue: string; id: string; lease_token: number } {
    return { queue: this.qualifiedName, id, lease_token };
  }

  private async end(id: string, token: string, outcome: Ending, command: Finish): Promise<void> {
    const lease = token === ANY_TOKEN ? this.leases.any(id) : this.leases.of(id, token);
    if (lease === undefined) throw await this.lost(id, token, command);
    const { ok, code, detail } = await this.outcomes.add({ ...this.lease(id, lease), ...outcome });
    this.leases.drop(id, lease);
    if (ok || (code === 'stale_lease' && (await this.reached(id, lease, outcome)))) return;
    if (code === 'stale_lease' || code === 'unknown_job' || code === 'cancelled') throw await this.lost(id, token, command);
    throw new Refused(409, code!, detail!);
  }

  /** Whether an outcome was taken the first time it was said, and only the answer was lost: nobody else had the job since. */
  private async reached(id: string, lease: number, { outcome, error }: Ending): Promise<boolean> {
    const view = await this.view(id);
    if (view?.lease_token !== lease) return false;
    return outcome === 'done' ? view.state === 'completed' : outcome === 'fail' && view.error?.message === error?.message;
  }

  /** Why a lease is not good: as BullMQ's stores say it. */
  private async lost(id: string, token: string, command: string): Promise<Error> {
    const view = await this.view(id);
    if (!view) return finished(Code.JobNotExist, id, command);
    if (view.state === 'active') return finished(Code.JobLockMismatch, id, command);
    return finished(token === ANY_TOKEN ? Code.JobNotInState : Code.JobLockNotExist, id, command);
  }

  private async settle(outcomes: object[]): Promise<Settled[]> {
    const body = { worker: this.worker, outcomes };
    return (await this.pond.call<{ results: Settled[] }>('POST', '/v1/outcomes', { body })).results;
  }

  private async ended(id: string, remove: unknown, token: string, fetchNext: boolean): Promise<{ result: void | Next; finishedOn: number }> {
    const finishedOn = Date.now();
    if (keep(remove)?.none) await this.forget([id]);
    const result = fetchNext && !this.closing ? await this.moveToActive(token) : undefined;
    return { result, finishedOn };
  }

  /** Retention is a setting of the queue: BullMQ's last word counts, as it does there whenever a job ends. */
  private async retain(setting: 'keep_completed' | 'keep_dead', remove: unknown): Promise<void> {
    const kept = keep(remove);
    if (!kept || kept.none) return;
    await this.shared.retain(this.path, setting, kept.retention);
  }

  private async forget(ids: string[]): Promise<void> {
    await this.pond.call('POST', `${this.path}/remove`, { body: { ids } });
  }

  // --- leases ---

  async extendLock(jobId: string, token: string, duration: number): Promise<number> {
    const failed = await this.extendLocks([jobId], [token], duration);
    return failed.length === 0 ? 1 : 0;
  }

  async extendLocks(jobIds: string[], tokens: string[], duration: number): Promise<string[]> {
    const held = jobIds.flatMap((id, place) => {
      const lease = this.leases.of(id, tokens[place]!);
      return lease === undefined ? [] : [this.lease(id, lease)];
    });
    const failed = jobIds.filter((id) => !held.some((lease) => lease.id === id));
    if (held.length === 0) return failed;
    const body = { worker: this.worker, leases: held, lease_ms: duration };
    const { results } = await this.pond.call<{ results: { id: string; ok: boolean }[] }>('POST', '/v1/renew', { body });
    return failed.concat(results.filter(({ ok }) => !ok).map(({ id }) => id));
  }

  // --- a job ---

  async updateData<T>(job: MinimalJob<T>, data: T): Promise<void> {
    throw new Unsupported(`job.updateData (job ${job.id}, ${typeof data})`, 'PATCH of the job changes the body of a job that is not active');
  }

  async updateProgress(jobId: string, progress: JobProgress): Promise<void> {
    await this.note(jobId, 'progress', { progress }, 'updateProgress');
  }

  async addLog(jobId: string, row: string, keepLogs?: number): Promise<number> {
    await this.note(jobId, 'log', { lines: row.split('\n') }, 'addLog');
    const { count } = await this.getJobLogs(jobId, 0, -1, true);
    return keepLogs ? Math.min(count, keepLogs) : count;
  }

  /** What only the worker that has the job may write. */
  private async note(id: string, what: string, fields: object, command: string): Promise<void> {
    const lease_token = this.leases.any(id);
    if (lease_token === undefined) {
      if (!(await this.view(id))) throw finished(Code.JobNotExist, id, command);
      throw new Unsupported(`${command} of a job that no worker of this process has`, 'do it in the processor');
    }
    await this.pond.call('POST', `${this.job(id)}/${what}`, { body: { lease_token, worker: this.worker, ...fields } });
  }

  clearLogs(): Promise<never> {
    return refuse('job.clearLogs', 'the server keeps the newest 1,000 lines');
  }

  async getJobLogs(jobId: string, start: number, end: number, asc: boolean): Promise<{ logs: string[]; count: number }> {
    const found = await this.pond.look<{ lines: { text: string }[] }>(`${this.job(jobId)}/log`);
    const logs = (found?.lines ?? []).map(({ text }) => text);
    const count = logs.length;
    if (!asc) logs.reverse();
    return { logs: logs.slice(start < 0 ? count + start : start, end < 0 ? count + end + 1 : end + 1), count };
  }

  changeDelay(): Promise<never> {
    return refuse('job.changeDelay', 'job.promote starts a delayed job now');
  }

  changePriority(): Promise<never> {
    return refuse('job.changePriority', 'a bulk operation reprioritises: docs/bulk.md');
  }

  async promote(jobId: string): Promise<void> {
    const view = await this.view(jobId);
    if (!view) throw finished(Code.JobNotExist, jobId, 'promote');
    if (stateOf(view) !== 'delayed') throw finished(Code.JobNotInState, jobId, 'promote', 'delayed');
    await this.pond.call('POST', `${this.job(jobId)}/promote`);
  }

  async retryFinishedJob<T, R, N extends string>(job: MinimalJob<T, R, N>, state: FinishedStatus): Promise<void> {
    const view = await this.view(job.id!);
    if (!view) throw finished(Code.JobNotExist, job.id!, 'reprocessJob');
    if (stateOf(view) !== state) throw finished(Code.JobNotInState, job.id!, 'reprocessJob', state);
    await this.pond.call('POST', `${this.job(job.id!)}/redrive`);
  }

  async remove(jobId: string): Promise<number> {
    const view = await this.view(jobId);
    if (!view) return 1;
    if (view.state === 'active') return 0;
    await this.pond.call('DELETE', this.job(jobId));
    return 1;
  }

  private job(id: string): string {
    return `${this.path}/jobs/${encodeURIComponent(id)}`;
  }

  private view(id: string): Promise<JobView | undefined> {
    return this.pond.look<JobView>(this.job(id));
  }

  async getJobData(jobId: string): Promise<JobJson | undefined> {
    const view = await this.view(jobId);
    if (!view) return undefined;
    const past = view.error ? await this.pond.look<{ history: { error: JobView['error'] }[] }>(`${this.job(jobId)}/history`) : undefined;
    return viewed(view, (past?.history ?? []).flatMap(({ error }) => (error?.stack ? [error.stack] : [])));
  }

  async getState(jobId: string): Promise<JobState | 'unknown'> {
    const view = await this.view(jobId);
    return view ? stateOf(view) : 'unknown';
  }

  async isJobInState(state: string, jobId: string): Promise<boolean> {
    return (await this.getState(jobId)) === (state === 'wait' ? 'waiting' : state);
  }

  async isFinished(jobId: string, withValue = false): Promise<number | [number, string]> {
    const view = await this.view(jobId);
    const answer = (status: number, value: string): number | [number, string] => (withValue ? [status, value] : status);
    if (!view) return answer(-1, `Missing key for job ${this.toKey(jobId)}. isFinished`);
    if (view.state === 'completed') return answer(1, JSON.stringify(view.result ?? null));
    if (stateOf(view) === 'failed') return answer(2, view.error?.message ?? view.state);
    return answer(0, '');
  }

  // --- the queue ---

  async pause(pause: boolean): Promise<void> {
    // A queue is made by its first push; BullMQ pauses one that has none yet.
    if (pause && !(await this.look())) await this.pond.call('PATCH', this.path, { body: {} });
    await this.pond.call('POST', `${this.path}/${pause ? 'pause' : 'resume'}`);
  }

  private look(): Promise<QueueView | undefined> {
    return this.pond.look<QueueView>(this.path);
  }

  private async queue(): Promise<QueueView> {
    return (await this.look()) ?? { paused: false, counts: {} as QueueView['counts'], settings: { limit: null } };
  }

  async getCounts(types: JobType[], delayedTimestamp?: number): Promise<number[]> {
    if (delayedTimestamp !== undefined) throw new Unsupported('counting delayed jobs before a time', 'getDelayedCount() counts them all');
    const { counts } = await this.queue();
    return types.map((type) => statesOf(type).reduce((sum, state) => sum + (counts[state] ?? 0), 0));
  }

  getCountsPerPriority(): Promise<never> {
    return refuse('getCountsPerPriority', 'getJobCounts counts jobs of every priority');
  }

  async getRanges(types: JobType[], start = 0, end = -1, asc = false): Promise<[string][]> {
    const lists = types.map(async (type) => {
      const states = statesOf(type).filter((state) => state !== 'blocked');
      const ids = (await Promise.all(states.map((state) => this.list(state)))).flat();
      if (!asc) ids.reverse();
      const range = ids.slice(start < 0 ? ids.length + start : start, end < 0 ? ids.length + end + 1 : end + 1);
      // BullMQ turns the ascending range of its lists round itself.
      return asc && ['wait', 'waiting', 'active'].includes(type) ? range.reverse() : range;
    });
    return (await Promise.all(lists)) as unknown as [string][];
  }

  private async list(state: State): Promise<string[]> {
    const ids: string[] = [];
    for await (const { id } of this.jobs(state)) {
      if (ids.length === LIST_MAX) throw new Unsupported(`listing more than ${LIST_MAX} jobs of a state`, 'the server lists them in pages: docs/http.md');
      ids.push(id);
    }
    return ids;
  }

  /** The jobs of a state in the order in which they were pushed, page by page. */
  private async *jobs(state: State): AsyncGenerator<JobView> {
    for (let cursor = ''; ;) {
      const page = await this.pond.look<{ jobs: JobView[]; cursor: string | null }>(`${this.path}/jobs?state=${state}&limit=${PAGE}${cursor}`);
      yield* page?.jobs ?? [];
      if (!page?.cursor) return;
      cursor = `&cursor=${encodeURIComponent(page.cursor)}`;
    }
  }

  async isMaxed(): Promise<boolean> {
    const { counts, settings } = await this.queue();
    const most = settings.limit?.concurrency;
    return most ? (counts.active ?? 0) >= most : false;
  }

  async drain(delayed: boolean): Promise<void> {
    await this.operation({ action: 'purge', states: delayed ? ['waiting', 'delayed', 'retrying'] : ['waiting'] });
  }

  async obliterate({ force }: { force: boolean; count: number }): Promise<number> {
    const queue = await this.look();
    if (!queue) return 0;
    if (!queue.paused) throw new Error('Cannot obliterate non-paused queue');
    if (queue.counts.active > 0 && !force) throw new Error('Cannot obliterate queue with active jobs');
    for (const action of ['purge', 'cancel', 'remove']) await this.operation({ action });
    await this.pause(false);
    return 0;
  }

  /** Starts a bulk operation and waits for its end. */
  private async operation(what: { action: string; states?: State[]; finished_before?: number }): Promise<void> {
    interface Progress { operation: { id: number; status: string } }
    let { operation } = await this.pond.call<Progress>('POST', `${this.path}/operations`, { body: what, key: randomUUID() });
    while (operation.status === 'running') {
      await this.shared.pause();
      ({ operation } = await this.pond.call<Progress>('GET', `/v1/operations/${operation.id}`));
    }
  }

  async retryFinishedJobs(state: FinishedStatus = 'failed', _count?: number, timestamp?: number): Promise<number> {
    const finished_before = timestamp === undefined || timestamp === Infinity ? undefined : Math.ceil(timestamp);
    await this.operation({ action: 'redrive', states: state === 'completed' ? ['completed'] : ['dead'], finished_before });
    return 0;
  }

  async promoteJobs(): Promise<number> {
    await this.operation({ action: 'promote' });
    return 0;
  }

  async cleanJobsByState(type: string, before: number, limit = 0): Promise<string[]> {
    if (!['completed', 'failed', 'wait', 'delayed'].includes(type)) {
      throw new Unsupported(`queue.clean of ${type} jobs`, 'clean completed, failed, wait (with jobs of every priority) or delayed ones');
    }
    const ids: string[] = [];
    for (const state of statesOf(type).filter((state) => state !== 'blocked' && state !== 'suspended')) {
      for await (const job of this.jobs(state)) {
        if (Date.parse(job.finished_at ?? job.created_at) <= before) ids.push(job.id);
        if (ids.length === (limit || LIST_MAX)) return this.removeAll(ids);
      }
    }
    return this.removeAll(ids);
  }

  /** Those that could be removed; one that was started meanwhile stays. */
  private async removeAll(ids: string[]): Promise<string[]> {
    const gone: string[] = [];
    for (let rest = ids; rest.length > 0; rest = rest.slice(PAGE)) {
      const page = rest.slice(0, PAGE);
      gone.push(...(await this.forget(page).then(() => page, () => this.removeEach(page))));
    }
    return gone;
  }

  private async removeEach(ids: string[]): Promise<string[]> {
    const gone: string[] = [];
    for (const id of ids) {
      try {
        await this.forget([id]);
        gone.push(id);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
      }
    }
    return gone;
  }

  async removeOrphanedJobs(): Promise<number> {
    return 0;
  }

  // --- what BullMQ keeps with a queue ---

  async setQueueMeta(values: Record<string, string | number>): Promise<number> {
    const limit: Partial<Limit> = {};
    for (const [field, value] of Object.entries(values)) {
      if (field === 'concurrency') limit.concurrency = Number(value);
      else if (field === 'version' || field === 'opts.maxLenEvents') this.shared.meta(this.path).set(field, String(value));
      else if (field !== 'max' && field !== 'duration') throw new Unsupported(`the queue's ${field}`, 'it has no such setting');
    }
    const { max, duration } = values;
    if (max !== undefined && duration !== undefined) limit.rate = { units: Number(max), per_ms: Number(duration), burst: Number(max) };
    if (Object.keys(limit).length > 0) await this.limit(limit);
    return Object.keys(values).length;
  }

  /** A limit is replaced as a whole; what is not meant stays. */
  private async limit(change: Partial<Limit>): Promise<void> {
    const { settings } = await this.queue();
    await this.pond.call('PATCH', this.path, { body: { limit: { ...settings.limit, ...change } } });
  }

  async getQueueMeta(): Promise<Record<string, string>> {
    const { paused, settings } = await this.queue();
    const { concurrency, rate } = settings.limit ?? {};
    return {
      ...Object.fromEntries(this.shared.meta(this.path)),
      ...(paused ? { paused: '1' } : {}),
      ...(concurrency ? { concurrency: String(concurrency) } : {}),
      ...(rate ? { max: String(rate.units), duration: String(rate.per_ms) } : {}),
    };
  }

  async getQueueMetaField(field: string): Promise<string | null> {
    return (await this.getQueueMeta())[field] ?? null;
  }

  async getQueueMetaFields(fields: string[]): Promise<(string | null)[]> {
    const meta = await this.getQueueMeta();
    return fields.map((field) => meta[field] ?? null);
  }

  async hasQueueMetaField(field: string): Promise<boolean> {
    return (await this.getQueueMetaField(field)) !== null;
  }

  async removeQueueMetaFields(fields: string[]): Promise<number> {
    const had = (await this.getQueueMetaFields(fields)).filter((value) => value !== null).length;
    const off: Partial<Limit> = {
      ...(fields.includes('concurrency') ? { concurrency: null } : {}),
      ...(fields.includes('max') ? { rate: null } : {}),
    };
    if (Object.keys(off).length > 0) await this.limit(off);
    return had;
  }

  async removeDeprecatedPriorityKey(): Promise<number> {
    return 0;
  }

  // --- events ---

  private events(after: string | undefined): Feed {
    this.feed ??= new Feed(this.pond, this.qualifiedName, after === '$' ? undefined : after, (error) => this.emit('error', error));
    return this.feed;
  }

  async readEvents(id: string, blockTimeout: number): Promise<[string, [string, string[]][]][] | null> {
    if (this.closing) return null;
    const entries = await this.events(id).read(blockTimeout || 5_000);
    return entries.length > 0 ? [['events', entries]] : null;
  }

  publishEvent(): Promise<never> {
    return refuse('QueueEventsProducer.publishEvent', 'push a job, or use a channel of your own');
  }

  trimEvents(): Promise<never> {
    return refuse('queue.trimEvents', 'the server keeps the newest events only');
  }

  // --- what is not translated yet ---

  addJobScheduler(): Promise<never> { return refuse('queue.upsertJobScheduler', SCHEDULERS); }
  updateJobSchedulerNextMillis(): Promise<never> { return refuse('queue.upsertJobScheduler', SCHEDULERS); }
  removeJobScheduler(): Promise<never> { return refuse('queue.removeJobScheduler', SCHEDULERS); }
  getJobScheduler(): Promise<never> { return refuse('queue.getJobScheduler', SCHEDULERS); }
  isJobScheduler(): Promise<never> { return refuse('job schedulers', SCHEDULERS); }
  getJobSchedulerData(): Promise<never> { return refuse('queue.getJobScheduler', SCHEDULERS); }
  getJobSchedulersRange(): Promise<never> { return refuse('queue.getJobSchedulers', SCHEDULERS); }
  getJobSchedulersCount(): Promise<never> { return refuse('queue.getJobSchedulersCount', SCHEDULERS); }
  removeUnprocessedChildren(): Promise<never> { return refuse('job.removeUnprocessedChildren', FLOWS); }
  removeChildDependency(): Promise<never> { return refuse('job.removeChildDependency', FLOWS); }
  getDependencyCounts(): Promise<never> { return refuse('job.getDependenciesCount', FLOWS); }
  getDependencies(_jobId: string, _opts: DependenciesOpts): Promise<never> { return refuse('job.getDependencies', FLOWS); }
  getProcessedChildrenValues(): Promise<never> { return refuse('job.getChildrenValues', FLOWS); }
  getIgnoredChildrenFailures(): Promise<never> { return refuse('job.getIgnoredChildrenFailures', FLOWS); }
  paginate(): Promise<never> { return refuse('paging through children', FLOWS); }
  removeDeduplicationKey(): Promise<never> { return refuse('job.removeDeduplicationKey', KEYS); }
  deleteDeduplicationKey(): Promise<never> { return refuse('queue.removeDeduplicationKey', KEYS); }
  getDeduplicationJobId(): Promise<never> { return refuse('queue.getDeduplicationJobId', KEYS); }
  getRateLimitTtl(): Promise<never> { return refuse('queue.getRateLimitTtl', 'explain says it: docs/explain.md'); }
  setRateLimit(): Promise<never> { return refuse('queue.rateLimit', 'set a limit of the queue: docs/flow.md'); }
  removeRateLimitKey(): Promise<never> { return refuse('queue.removeRateLimitKey', 'set a limit of the queue: docs/flow.md'); }
  getMetrics(): Promise<never> { return refuse('queue.getMetrics', 'the server has metrics: GET /metrics'); }
}

/** Our states of one of BullMQ's; `prioritized` is a part of `wait` here. */
function statesOf(type: string): readonly State[] {
  return STATES[(type === 'waiting' ? 'wait' : type) as keyof typeof STATES] ?? [];
}

/** A promise, because BullMQ's callers expect one. */
async function refuse(feature: string, instead: string): Promise<never> {
  throw new Unsupported(feature, instead);
}

/** An error as the server keeps it, from the reason and the stacks that BullMQ hands over. */
function failure(reason: unknown, fields: Record<string, unknown> = {}): { kind: string; message: string; stack?: string } {
  const message = String(reason ?? '');
  const stacks = typeof fields['stacktrace'] === 'string' ? (JSON.parse(fields['stacktrace']) as string[]) : [];
  const stack = stacks.at(-1);
  const kind = /^([A-Za-z_$][\w$.]*)(?::|\n|$)/.exec(stack ?? '')?.[1] ?? 'Error';
  return { kind, message: cut(message), ...(stack ? { stack: cut(stack) } : {}) };
}

/** An error has 16 KiB on the server. */
function cut(text: string): string {
  return Buffer.byteLength(text) <= 7_000 ? text : Buffer.from(text).subarray(0, 7_000).toString().replace(/\uFFFD$/, '');
}
