import { EventEmitter } from 'node:events';
import { Closed, MillpondError, Refused } from './errors.js';
import type { Http } from './http.js';
import { Job, type CalledOff } from './job.js';
import { Done, done, ended, told } from './outcomes.js';
import { queueName } from './push.js';
import { millis, type Span } from './span.js';
import type { Ending, Stream, Subscription } from './stream.js';
import type { Durability, LeasedJob, Lost, Settled, WireOutcome } from './wire.js';

/** As many jobs are fetched ahead as the handlers finish within this at their present pace, measured over the second. */
const AHEAD_MS = 100;
const PACE_MS = 20;
/** Handlers are started for so long, then others have a turn of the loop. */
const TURN_MS = 10;
/** Jobs that waited for a handler for so long, or for a third of their lease, go back for others. */
const STALE_MS = 2_000;
/** How long handlers may go on after they were told to stop. */
const GRACE_MS = 5_000;
/** How often an outcome is told of which the server says that it is no request. */
const TELL_MAX = 3;
/** Refusals that pass: the outcome is told again. */
const PASSING = new Set([
  'overloaded', 'memory_full', 'disk_full', 'queue_full', 'pond_full', 'starting', 'stopping', 'unknown_outcome', 'steps_full',
]);
const GONE = new Set(['stale_lease', 'cancelled', 'unknown_job']);

/** What it returns is the result; what it throws is a retry, unless it is another outcome. */
export type Handler<T = any, R = unknown> = (job: Job<T>) => R | Done<R> | Promise<R | Done<R>>;

export interface WorkerOptions {
  /** Handlers at once. Default 16. */
  concurrency?: number;
  /** How long a job is safe from others if this process dies; renewed while it lives. Default 30 s. */
  lease?: Span;
  /** The most jobs that may wait here beyond the running ones, as many as are finished within 100 ms. Default 1,000. */
  prefetch?: number;
  /** Its name in the histories of jobs. Default: the pond's. */
  name?: string;
  /** How safe outcomes must be before they are answered. Default: the server's. */
  durability?: Durability;
}

interface Events {
  /** The outcome is acknowledged. */
  completed: [job: Job<any>, result: unknown];
  /** The attempt failed, and the job's state is now this. */
  failed: [job: Job<any>, error: unknown, state: string];
  /** The lease is gone: cancelled, timed out, or with another worker. */
  lost: [job: Job<any>, reason: string];
  /** The server ends the subscription, or takes an outcome in no form. */
  error: [error: Error];
}

/** Takes jobs and runs handlers until `stop`. */
export class Worker extends EventEmitter<Events> {
  private readonly subscription: Subscription;
  private readonly running = new Set<Job>();
  private readonly concurrency: number;
  private readonly prefetch: number;
  private readonly staleMs: number;
  private readonly sweeping: NodeJS.Timeout;
  private waiting: { job: LeasedJob; at: number }[] = [];
  private first = 0;
  private coming: number;
  private unsettled = 0;
  private beginning = false;
  private turnEnds = 0;
  private stopping?: Promise<void>;
  private idle?: () => void;
  private pace = { ahead: 0, finished: 0, since: performance.now() };
  private over = false;

  /** @internal */
  constructor(
    private readonly stream: Stream,
    private readonly http: Http,
    private readonly handlers: Map<string, Handler>,
    private readonly options: WorkerOptions = {},
  ) {
    super();
    const { concurrency = 16, prefetch = 1_000, lease = '30s', name, durability } = options;
    if (!(concurrency >= 1 && concurrency + prefetch <= 10_000)) throw new RangeError('concurrency and prefetch are at most 10,000 together');
    [this.concurrency, this.prefetch, this.coming] = [concurrency, prefetch, concurrency];
    this.staleMs = Math.min(STALE_MS, millis(lease) / 3);
    this.subscription = stream.subscribe({
      queues: [...handlers.keys()].map(queueName),
      credit: concurrency,
      lease,
      worker: name,
      durability,
      jobs: (jobs, at) => this.take(jobs, at),
      lost: (lost) => this.lose(lost),
      ended: (why) => this.end(why),
    });
    this.sweeping = setInterval(() => this.sweep(), this.staleMs).unref();
  }

  /** Handlers that run now. */
  get active(): number {
    return this.running.size;
  }

  /**
   * Takes no more jobs, gives back those that wait, and resolves when the running ones have ended and their outcomes are acknowledged.
   * After `timeout` (for ever) their signals are aborted with `stopping`; 5 s later those that still run go back to the queue.
   */
  stop({ timeout }: { timeout?: Span } = {}): Promise<void> {
    this.stopping ??= this.drain();
    if (timeout === undefined) return this.stopping;
    const hurry = setTimeout(() => {
      for (const job of this.running) job.callOff('stopping');
      setTimeout(() => this.abandon(), GRACE_MS).unref();
    }, millis(timeout)).unref();
    return this.stopping.finally(() => clearTimeout(hurry));
  }

  private async drain(): Promise<void> {
    clearInterval(this.sweeping);
    await this.subscription.leave();
    for (const { job } of this.waiting.slice(this.first)) this.giveBack(job);
    [this.waiting, this.first] = [[], 0];
    if (this.running.size + this.unsettled > 0 && !this.over) await new Promise<void>((resolve) => { this.idle = resolve; });
  }

  private abandon(): void {
    for (const job of this.running) {
      this.running.delete(job);
      this.giveBack(job.raw);
    }
  }

  private take(jobs: LeasedJob[], at: number): void {
    this.coming -= jobs.length;
    for (const job of jobs) this.waiting.push({ job, at });
    this.schedule();
  }

  private schedule(): void {
    if (this.beginning) return;
    this.beginning = true;
    setImmediate(() => {
      this.beginning = false;
      this.turnEnds = performance.now() + TURN_MS;
      this.begin();
    });
  }

  /** Starts handlers until this turn is over, so that outcomes leave between handlers that never wait. */
  private begin(): void {
    const stale = Date.now() - this.staleMs;
    while (this.running.size < this.concurrency && this.first < this.waiting.length && !this.stopping) {
      if (performance.now() > this.turnEnds) {
        this.schedule();
        break;
      }
      const { job, at } = this.waiting[this.first++]!;
      // While this thread was blocked its lease may have ended.
      if (at < stale) this.giveBack(job);
      else void this.run(job);
    }
    if (this.first > 1_000 || this.first === this.waiting.length) {
      this.waiting.splice(0, this.first);
      this.first = 0;
    }
    this.refill();
  }

  private refill(): void {
    if (this.stopping || this.over) return;
    const { pace } = this;
    const span = performance.now() - pace.since;
    if (span >= PACE_MS) {
      // What comes in bursts finishes in bursts: one quiet moment is not a slower pace.
      const ahead = Math.min(this.prefetch, Math.floor(Math.max((pace.finished * AHEAD_MS) / span, pace.ahead * 0.75)));
      this.pace = { ahead, finished: 0, since: pace.since + span };
    }
    const had = this.running.size + this.waiting.length - this.first + this.coming;
    const room = this.concurrency + this.pace.ahead - had;
    if (room <= 0) return;
    this.coming += room;
    this.subscription.grant(room);
  }

  /** Gives back what waits for too long while all handlers are busy. */
  private sweep(): void {
    const stale = Date.now() - this.staleMs;
    while (this.first < this.waiting.length && this.waiting[this.first]!.at < stale) this.giveBack(this.waiting[this.first++]!.job);
  }

  private giveBack(job: LeasedJob): void {
    const release = () => this.stream.release(job);
    this.stream.settleThen({ outcome: 'snooze' }, { raw: job, settled: release, failed: release });
  }

  private async run(leased: LeasedJob): Promise<void> {
    const job = new Job(leased, this.stream, this.http, this.options.name);
    this.running.add(job);
    let value: unknown;
    let error: unknown;
    let outcome: WireOutcome;
    try {
      value = await this.handlers.get(leased.queue)!(job);
      outcome = value instanceof Done ? value.toWire() : done(value);
    } catch (thrown) {
      [outcome, error] = ended(thrown);
    }
    // Given back meanwhile.
    if (!this.running.delete(job)) return;
    this.pace.finished += 1;
    const lost = job.calledOff && job.calledOff.reason !== 'stopping';
    if (!lost) this.tell(job, job.suspension ?? outcome, value, error);
    this.begin();
    this.rest();
  }

  private tell(job: Job, outcome: WireOutcome, value: unknown, error: unknown): void {
    this.unsettled += 1;
    job.told += 1;
    this.stream.settleThen(outcome, new Told(this, job, outcome, value, error));
  }

  /** @internal The server has judged an outcome. */
  settled(told: Told, result: Settled): void {
    const { job, outcome, value, error } = told;
    this.unsettled -= 1;
    if (result.code !== undefined) this.refused(told, result);
    else if (outcome.outcome === 'done') this.emit('completed', job, value instanceof Done ? value.result : value);
    else if (outcome.outcome === 'retry' || outcome.outcome === 'fail') this.emit('failed', job, error, result.state ?? '');
    this.rest();
  }

  private refused({ job, outcome, value, error }: Told, { code = '', detail = '', retry_after_ms = 100 }: Settled): void {
    if (code === 'closed') return;
    if (GONE.has(code)) {
      this.emit('lost', job, code === 'cancelled' ? code : 'lease_lost');
      return;
    }
    if (PASSING.has(code) || (code === 'bad_request' && job.told < TELL_MAX)) {
      // Until the lease ends: it is renewed meanwhile.
      this.unsettled += 1;
      setTimeout(() => {
        this.unsettled -= 1;
        this.tell(job, outcome, value, error);
      }, retry_after_ms * (1 + Math.random()));
      return;
    }
    const why = new Refused(code, `the outcome of job ${job.id} was refused: ${detail}`);
    if (outcome.error?.kind !== code) {
      // Something of it cannot be kept, such as a result that is too large; that is the job's failure.
      this.tell(job, { outcome: 'fail', error: { ...told(why), kind: code } }, undefined, why);
      return;
    }
    this.stream.release(job.raw);
    this.emit('error', why);
  }

  private lose(lost: Lost[]): void {
    for (const { queue, id, lease_token, reason } of lost) {
      const is = (job: LeasedJob) => job.lease_token === lease_token && job.id === id && job.queue === queue;
      const at = this.waiting.findIndex(({ job }, place) => place >= this.first && is(job));
      if (at >= 0) this.stream.release(this.waiting.splice(at, 1)[0]!.job);
      for (const job of this.running) if (is(job.raw)) this.callOff(job, reason);
    }
    this.refill();
  }

  private callOff(job: Job, reason: CalledOff['reason']): void {
    if (job.calledOff) return;
    this.stream.release(job.raw);
    job.callOff(reason);
    this.emit('lost', job, reason);
  }

  private end(why: MillpondError): void {
    this.over = true;
    clearInterval(this.sweeping);
    this.rest();
    if (!(why instanceof Closed)) this.emit('error', why);
  }

  private rest(): void {
    if (this.idle && (this.over || this.running.size + this.unsettled === 0)) this.idle();
  }
}

/** An outcome under way. */
class Told implements Ending {
  constructor(
    private readonly worker: Worker,
    readonly job: Job,
    readonly outcome: WireOutcome,
    readonly value: unknown,
    readonly error: unknown,
  ) {}

  get raw(): LeasedJob {
    return this.job.raw;
  }

  settled(result: Settled): void {
    this.worker.settled(this, result);
  }

  failed(why: MillpondError): void {
    this.settled({ code: why.code, detail: why.message, retry_after_ms: why instanceof Refused ? why.retryAfterMs : undefined });
  }
}
