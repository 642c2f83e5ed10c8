import { Http } from './http.js';
import { Away, JobFailed, Refused } from './errors.js';
import { toWire, queueName, type JobOptions, type NewJob } from './push.js';
import { millis, type Span } from './span.js';
import { Stream, address, type ConnectOptions } from './stream.js';
import type { Durability, Pushed, WireJob } from './wire.js';
import { Worker, type Handler, type WorkerOptions } from './worker.js';

/** A push that waits for room asks again after this. */
const WAIT_MS = 10_000;

/** How a push is carried out. */
export interface PushOptions {
  /** For 24 hours the same key gets the first answer again, also when nobody knows what became of the first call. */
  idempotencyKey?: string;
  /** How long to wait for room in a full queue whose producers wait. */
  wait?: Span;
  /** How safe it must be before it is answered. Default: the server's. */
  durability?: Durability;
  signal?: AbortSignal;
}

/** What a push brought. */
export interface Receipt {
  id: string;
  state: string;
  /** A job of that id or unique key existed already: this is its receipt. */
  deduplicated: boolean;
  /** That job is no longer kept. */
  forgotten: boolean;
  /** Where the push stands in the log. */
  position: number;
  durability: Durability;
}

/** Connects to a server: `millpond://HOST:PORT`, or `millpond+tls://` where it has TLS. */
export async function connect(url = 'millpond://127.0.0.1:7077', options: ConnectOptions = {}): Promise<Pond> {
  return new Pond(await Stream.open(url, options), new Http(address(url).http, options.token, options.ca));
}

/** A connected server. Close it, or the process does not end. */
export class Pond {
  private readonly workers = new Set<Worker>();

  /** @internal */
  constructor(
    /** The stream below: bytes as bodies, leases by hand, `up` and `down`. */
    readonly stream: Stream,
    /** The routes of docs/http.md. */
    readonly http: Http,
  ) {}

  /** A queue, whether it is there yet or not. `defaults` count for every push that does not say otherwise. */
  queue<T = unknown, R = unknown>(name: string, defaults: JobOptions = {}): Queue<T, R> {
    return new Queue(this, queueName(name), defaults);
  }

  /** Adds jobs to any queues, all or none. */
  async pushAll(jobs: NewJob[], options: PushOptions = {}): Promise<Receipt[]> {
    if (jobs.length === 0) return [];
    return this.send(jobs.map(toWire), options);
  }

  /**
   * A worker on several queues, in order of preference: a handler for each, or one for all.
   *
   *     pond.worker({ emails: send, images: resize }, { concurrency: 8 })
   */
  worker(handlers: Record<string, Handler>, options?: WorkerOptions): Worker;
  worker(queues: string[], handler: Handler, options?: WorkerOptions): Worker;
  worker(queues: string[] | Record<string, Handler>, second?: Handler | WorkerOptions, third?: WorkerOptions): Worker {
    const handlers = Array.isArray(queues) ? queues.map((queue) => [queue, second as Handler] as const) : Object.entries(queues);
    const options = Array.isArray(queues) ? third : (second as WorkerOptions | undefined);
    const worker = new Worker(this.stream, this.http, new Map(handlers), options);
    this.workers.add(worker);
    return worker;
  }

  /** Stops all workers (see `Worker.stop`), then says goodbye. */
  async close(options: { timeout?: Span } = {}): Promise<void> {
    await Promise.all([...this.workers].map((worker) => worker.stop(options)));
    await this.stream.close();
    this.http.close();
  }

  /** Closes when one of these signals comes, SIGINT and SIGTERM if none are named. A second one ends the process as ever. */
  closeOn(signals: NodeJS.Signals[] = ['SIGINT', 'SIGTERM'], options: { timeout?: Span } = {}): void {
    const close = () => {
      for (const signal of signals) process.off(signal, close);
      void this.close(options);
    };
    for (const signal of signals) process.on(signal, close);
  }

  /** @internal */
  async send(jobs: WireJob[], options: PushOptions): Promise<Receipt[]> {
    const { idempotencyKey: key, durability, signal } = options;
    const until = Date.now() + millis(options.wait ?? 0);
    for (;;) {
      const wait_ms = Math.min(Math.max(until - Date.now(), 0), WAIT_MS);
      try {
        return receipts(await this.stream.push(jobs, { key, wait_ms, durability, signal }));
      } catch (error) {
        // It has waited as long as it said, and may wait longer.
        if (!(error instanceof Refused && error.code === 'queue_full' && Date.now() < until)) throw error;
      }
    }
  }
}

function receipts({ position, durability, jobs }: Pushed): Receipt[] {
  return jobs.map(({ id, state, deduplicated = false, forgotten = false }) => ({
    id, state, deduplicated, forgotten, position, durability,
  }));
}

/** A job as `GET …/jobs/{id}` shows it, see docs/http.md. */
export interface JobView<T = unknown, R = unknown> {
  id: string;
  queue: string;
  state: string;
  body?: T;
  result?: R;
  attempt: number;
  attempts: number;
  [field: string]: unknown;
}

/** Which jobs a bulk operation takes; see docs/bulk.md. */
export interface Filter {
  state?: string | string[];
  tag?: string;
  error_kind?: string;
  created_before?: string | number;
  ids?: string[];
  rate?: number;
  dry_run?: boolean;
  [field: string]: unknown;
}

/** One queue. `T` is the type of its bodies, `R` of its results. */
export class Queue<T = unknown, R = unknown> {
  private readonly path: string;

  /** @internal */
  constructor(private readonly pond: Pond, readonly name: string, private readonly defaults: JobOptions) {
    this.path = `/v1/queues/${name}`;
  }

  /** A job to be pushed elsewhere: with others in `Pond.pushAll`, or together with an outcome. */
  prepare(body: T, options?: JobOptions): NewJob<T> {
    return { ...this.defaults, ...options, queue: this.name, body };
  }

  /** Adds a job. */
  async push(body: T, options: JobOptions & PushOptions = {}): Promise<Receipt> {
    const { idempotencyKey, wait, durability, signal, ...job } = options;
    const receipts = await this.pond.send([toWire(this.prepare(body, job))], { idempotencyKey, wait, durability, signal });
    return receipts[0]!;
  }

  /** Adds jobs, all or none; the options count for each. */
  async pushAll(bodies: T[], options: JobOptions & PushOptions = {}): Promise<Receipt[]> {
    const { idempotencyKey, wait, durability, signal, ...job } = options;
    return this.pond.pushAll(bodies.map((body) => this.prepare(body, job)), { idempotencyKey, wait, durability, signal });
  }

  /** Takes jobs and runs the handler for each. */
  worker(handler: Handler<T, R>, options?: WorkerOptions): Worker {
    return this.pond.worker([this.name], handler, options);
  }

  /** A job with body and result; undefined if there is none. */
  job(id: string): Promise<JobView<T, R> | undefined> {
    return this.pond.http.find(this.of(id));
  }

  /** Waits for a job to end: its result; fails with `JobFailed` if it does not complete, and with the signal's reason when that is aborted. */
  async result(id: string, { signal }: { signal?: AbortSignal } = {}): Promise<R | undefined> {
    const over = new AbortController();
    signal?.addEventListener('abort', () => over.abort(signal.reason), { once: true });
    try {
      // First the ear, then the look, so that an end in between is heard.
      const events = await this.pond.http.events({ queue: this.name, id }, over.signal);
      const ended = async () => {
        const job = await this.job(id);
        if (!job) throw new JobFailed(id, 'removed');
        if (job.state === 'completed') return { result: job.result };
        if (['dead', 'cancelled', 'expired'].includes(job.state)) throw new JobFailed(id, job.state);
        return undefined;
      };
      let end = await ended();
      if (end) return end.result;
      for await (const _ of events) if ((end = await ended())) return end.result;
      throw signal?.aborted ? signal.reason : new Away('the server ended its events');
    } finally {
      over.abort();
    }
  }

  /** A page of jobs, without bodies and results. */
  jobs(query: { state?: string; tag?: string; error_kind?: string; limit?: number; cursor?: string } = {}): Promise<{ jobs: JobView[]; cursor: string | null }> {
    return this.pond.http.call('GET', `${this.path}/jobs`, { query });
  }

  /** How many jobs there are in each state. */
  async counts(): Promise<Record<string, number>> {
    return (await this.info())?.['counts'] ?? {};
  }

  /** Counts, totals, rates, settings; undefined if there is no such queue yet. */
  info(): Promise<Record<string, any> | undefined> {
    return this.pond.http.find(this.path);
  }

  /** Why a job is where it is, and when it starts. */
  explain(id: string): Promise<{ state: string; summary: string; reasons: object[]; expected_at: string | null }> {
    return this.pond.http.call('GET', `${this.of(id)}/explain`);
  }

  /** Every change of a job. */
  async history(id: string): Promise<Record<string, unknown>[]> {
    return (await this.pond.http.call('GET', `${this.of(id)}/history`)).history;
  }

  /** Calls a job off, waiting or running. */
  cancel(id: string, reason?: string): Promise<{ id: string; state: string }> {
    return this.post(`${this.of(id)}/cancel`, { reason });
  }

  /** Starts a delayed or retrying job now. */
  promote(id: string): Promise<{ id: string; state: string }> {
    return this.post(`${this.of(id)}/promote`);
  }

  /** Gives a final job another life. */
  redrive(id: string): Promise<{ id: string; state: string }> {
    return this.post(`${this.of(id)}/redrive`);
  }

  /** Gives dead jobs another life, in the background: all, or those that match. */
  redriveAll(filter: Filter = {}): Promise<Record<string, any>> {
    return this.post(`${this.path}/redrive`, filter);
  }

  /** Forgets a job that is not active. */
  remove(id: string): Promise<{ id: string; removed: boolean }> {
    return this.pond.http.call('DELETE', this.of(id));
  }

  /** Tells a job what it waits for. */
  signal(id: string, name: string, body?: unknown): Promise<{ id: string; state: string; buffered: boolean }> {
    return this.post(`${this.of(id)}/signal`, { name, body });
  }

  /** Hands out no more jobs. */
  pause(): Promise<unknown> {
    return this.post(`${this.path}/pause`);
  }

  resume(): Promise<unknown> {
    return this.post(`${this.path}/resume`);
  }

  /** Changes settings, by the names of docs/http.md; makes the queue. */
  configure(settings: Record<string, unknown>): Promise<Record<string, any>> {
    return this.pond.http.call('PATCH', this.path, { body: settings });
  }

  private of(id: string): string {
    return `${this.path}/jobs/${encodeURIComponent(id)}`;
  }

  private post<A>(path: string, body: object = {}): Promise<A> {
    return this.pond.http.call('POST', path, { body });
  }
}
