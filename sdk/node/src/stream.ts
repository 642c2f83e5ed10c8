// The worker stream as callers see it: requests, subscriptions and outcomes, with bytes as bodies. The connection itself is link.ts.

import { Decoder, Encoder } from '@msgpack/msgpack';
import { EventEmitter } from 'node:events';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Worker as Thread } from 'node:worker_threads';
import { Away, Closed, MillpondError, Refused, Unknown } from './errors.js';
import { millis, type Span } from './span.js';
import {
  Route,
  type Durability,
  type FromLink,
  type LeasedJob,
  type LinkOptions,
  type Lost,
  type Pushed,
  type Settled,
  type ToLink,
  type WireJob,
  type WireOutcome,
} from './wire.js';

/** How often the link's thread is told that this one turns. */
const BEAT_MS = 100;
/** Calls that may be under way at once, and their bytes. */
const CALLS_MAX = 100_000;
const CALLS_BYTES_MAX = 256 << 20;
/** Outcomes in one message. */
const OUTCOMES_MAX = 1_000;
const LEASE_MS = 30_000;

export interface ConnectOptions {
  /** A token of the server, if it has tokens. */
  token?: string;
  /** Your name in the histories of jobs. Default: host and process. */
  name?: string;
  /** How long calls wait for a server that is away. Default 10 s. */
  patience?: Span;
  /** A link that is silent for two and a half of it is given up. Default 400 ms. */
  heartbeat?: Span;
  /** For how long the thread of the handlers may be blocked before their leases are no longer renewed. Default 60 s. */
  maxBlocked?: Span;
  /** Certificates in PEM: a server under TLS is believed if its own leads to one of them, instead of those of the system. */
  ca?: string | Buffer;
}

export interface RequestOptions {
  /** Twice is as good as once: then it is sent again when nobody knows what became of it. */
  repeat?: boolean;
  /** It waits for a server for ever instead of as long as `patience`. */
  patient?: boolean;
  /** Gives the request up. */
  signal?: AbortSignal;
}

export interface SubscribeOptions {
  /** In order of preference. */
  queues: string[];
  /** Jobs that may come, until `grant` allows more. */
  credit: number;
  /** Default 30 s. */
  lease?: Span;
  /** In whose name, if not the stream's. */
  worker?: string;
  durability?: Durability;
  /** The link renews the leases until their outcomes are answered, `release` is called, or this thread hangs. Default true. */
  renew?: boolean;
  jobs: (jobs: LeasedJob[], at: number) => void;
  /** Leases that were taken away: stop these jobs, no outcome of theirs counts. */
  lost?: (lost: Lost[]) => void;
  /** The server ended the subscription. */
  ended?: (why: MillpondError) => void;
}

interface Call {
  resolve: (fields: any, name: string) => void;
  reject: (error: MillpondError) => void;
  bytes: number;
}

/** Where a job came from. */
interface Origin {
  feed: Feed;
  frame: number;
  place: number;
}

const ORIGIN = Symbol('origin');
type Known = LeasedJob & { [ORIGIN]?: Origin };

/** Refusals after which a lease is over. */
const OVER = new Set(['stale_lease', 'cancelled', 'unknown_job']);

export interface Subscription {
  /** Lets so many more jobs come. At most 10,000 may be on their way. */
  grant(count: number): void;
  /** No more jobs come once this has resolved. Those that came stay yours. */
  leave(): Promise<void>;
}

/** The address of a server in the form of URLs: `millpond://host:7077`, `millpond+tls://`, `http://`, `https://`. */
export function address(url: string): { http: string; ws: string } {
  const [, scheme, rest] = /^(millpond|millpond\+tls|http|https):\/\/([^/?#@\s]+)\/?$/.exec(url) ?? [];
  if (!scheme || !rest) throw new TypeError(`${url} is no address: use millpond://HOST:PORT, with TLS millpond+tls://HOST:PORT`);
  const s = scheme === 'millpond+tls' || scheme === 'https' ? 's' : '';
  const host = /:\d+$/.test(rest) ? rest : `${rest}:7077`;
  return { http: `http${s}://${host}`, ws: `ws${s}://${host}/v1/stream` };
}

/** Events: `up`, `down` with the reason, `error` if the link's thread breaks. */
export class Stream extends EventEmitter<{ up: []; down: [why: string]; error: [error: Error] }> {
  private readonly encoder = new Encoder({ ignoreUndefined: true });
  private readonly decoder = new Decoder();
  private readonly calls = new Map<number, Call>();
  private readonly feeds = new Map<number, Feed>();
  /** Feeds with outcomes to be sent. */
  private readonly ending = new Set<Feed>();
  private readonly beat = new Int32Array(new SharedArrayBuffer(4));
  private readonly beating: NodeJS.Timeout;
  private readonly thread: Thread;
  private readonly ended: Promise<void>;
  private lastCall = 0;
  private lastFeed = 0;
  private callsBytes = 0;
  private messageBytesMax = Infinity;
  private next: ToLink = {};
  private buffer = new Uint8Array(64 << 10);
  private filled = 0;
  private scheduled = false;
  private closed: Closed | undefined;

  private constructor(readonly name: string, options: Omit<LinkOptions, 'beat'>) {
    super();
    this.thread = new Thread(join(__dirname, 'link.js'), { workerData: { ...options, beat: this.beat }, name: 'millpond-link' });
    this.thread.on('message', (messages: FromLink[]) => messages.forEach((message) => this.hear(message)));
    this.thread.on('error', (error) => {
      this.end(new Closed(`the link's thread broke: ${error.message}`));
      if (this.listenerCount('error') > 0) this.emit('error', error);
    });
    this.ended = new Promise((resolve) => this.thread.once('exit', () => resolve()));
    this.beating = setInterval(() => Atomics.add(this.beat, 0, 1), BEAT_MS).unref();
  }

  /** Connects. Fails with `Refused` if the server wants nothing of us, with `Away` if there is none within `patience`. */
  static async open(url: string, options: ConnectOptions = {}): Promise<Stream> {
    const name = options.name ?? `${hostname()}:${process.pid}`;
    const patienceMs = millis(options.patience ?? '10s');
    const stream = new Stream(name, {
      url: address(url).ws,
      token: options.token,
      ca: options.ca,
      worker: name,
      heartbeatMs: millis(options.heartbeat ?? 400),
      patienceMs,
      maxBlockedMs: millis(options.maxBlocked ?? '60s'),
    });
    try {
      await stream.welcomed(patienceMs);
      return stream;
    } catch (error) {
      await stream.close();
      throw error;
    }
  }

  private rejected: (error: MillpondError) => void = () => {};

  private async welcomed(patienceMs: number): Promise<void> {
    let why = 'no answer';
    this.on('down', (reason) => { why = reason; });
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => reject(new Away(why)), patienceMs);
      this.rejected = reject;
      this.once('up', resolve);
    }).finally(() => clearTimeout(timer));
    this.removeAllListeners('down');
  }

  /** Any request of docs/stream.md that has an answer; resolves to the fields of the answer. */
  request<T = any>(name: string, fields: object, options: RequestOptions = {}): Promise<T> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const number = this.ask(name, fields, options, { resolve, reject });
      if (!signal || number === 0) return;
      const abort = () => {
        if (!this.calls.has(number)) return;
        this.forget(number);
        (this.next.withdraw ??= []).push(number);
        this.schedule();
        reject(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
      const call = this.calls.get(number)!;
      const done = <A extends unknown[]>(end: (...values: A) => void) => (...values: A) => {
        signal.removeEventListener('abort', abort);
        end(...values);
      };
      [call.resolve, call.reject] = [done(call.resolve), done(call.reject)];
    });
  }

  /** Adds jobs, all or none. */
  push(
    jobs: WireJob[],
    { key, wait_ms, durability, ...options }: { key?: string; wait_ms?: number; durability?: Durability } & RequestOptions = {},
  ): Promise<Pushed> {
    return this.request('push', { jobs, key, wait_ms, durability }, { repeat: key !== undefined, ...options });
  }

  /**
   * Says how the attempt ended, together with others of this moment; it is sent again until it is answered. Never rejects for what the
   * server says: look at `code`.
   */
  settle(job: LeasedJob, outcome: WireOutcome): Promise<Settled> {
    return new Promise((settled, failed) => this.settleThen(outcome, { raw: job, settled, failed }));
  }

  /** @internal As `settle`, for those who end thousands a second. */
  settleThen(outcome: WireOutcome, ending: Ending): void {
    const origin = (ending.raw as Known)[ORIGIN];
    if (!origin) throw new TypeError('this job did not come from a subscription of this stream, or was released');
    origin.feed.settle(outcome, ending);
    this.ending.add(origin.feed);
    this.schedule();
  }

  /** The lease of the job is not renewed any more. */
  release(job: LeasedJob): void {
    const origin = (job as Known)[ORIGIN];
    if (!origin) return;
    (job as Known)[ORIGIN] = undefined;
    origin.feed.out -= 1;
    this.forgetFeed(origin.feed);
    this.released.push(origin.frame, origin.place);
    this.schedule();
  }

  private released: number[] = [];

  subscribe(options: SubscribeOptions): Subscription {
    this.lastFeed += 1;
    const feed = new Feed(this, this.lastFeed, options);
    this.feeds.set(this.lastFeed, feed);
    const { queues, credit, worker, durability, renew = true } = options;
    const lease_ms = millis(options.lease ?? LEASE_MS);
    (this.next.feeds ??= []).push({ feed: this.lastFeed, queues, lease_ms, worker, durability, credit, renew });
    this.schedule();
    return feed;
  }

  /** Says goodbye once every call has its answer, or after `timeout` (5 s). Leases that are left go back at once. */
  async close({ timeout = '5s' }: { timeout?: Span } = {}): Promise<void> {
    if (this.closed) return this.ended;
    const until = performance.now() + millis(timeout);
    this.flush();
    while (this.calls.size > 0 && this.up && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    if (this.closed) return this.ended;
    this.closed = new Closed();
    this.next.close = true;
    this.flush();
    await this.ended;
    this.end(this.closed);
  }

  private up = false;

  /** @internal */
  ask(name: string, fields: object, options: RequestOptions, call: Omit<Call, 'bytes'>): number {
    if (this.closed) {
      call.reject(this.closed);
      return 0;
    }
    const encoded = this.encoder.encodeSharedRef(fields);
    const size = encoded.length;
    if (size >= this.messageBytesMax) {
      call.reject(new Refused('too_many', `a message has at most ${this.messageBytesMax} bytes: split the call`));
      return 0;
    }
    if (this.calls.size >= CALLS_MAX || this.callsBytes + size > CALLS_BYTES_MAX) {
      call.reject(new Refused('overloaded', 'too many calls wait for the server: wait for some to end', 100));
      return 0;
    }
    if (this.filled + size > this.buffer.length) {
      const larger = new Uint8Array(Math.max(this.buffer.length * 2, this.filled + size));
      larger.set(this.buffer.subarray(0, this.filled));
      this.buffer = larger;
    }
    this.buffer.set(encoded, this.filled);
    this.lastCall += 1;
    this.calls.set(this.lastCall, { ...call, bytes: size });
    this.callsBytes += size;
    const { repeat = false, patient = false } = options;
    (this.next.asks ??= []).push([this.lastCall, name, this.filled, this.filled + size, repeat, patient]);
    this.filled += size;
    this.schedule();
    return this.lastCall;
  }

  private forget(number: number): Call | undefined {
    const call = this.calls.get(number);
    if (!call) return undefined;
    this.calls.delete(number);
    this.callsBytes -= call.bytes;
    return call;
  }

  /** @internal */
  grant(feed: number, count: number): void {
    (this.next.grants ??= []).push(feed, count);
    this.schedule();
  }

  /** @internal */
  leave(feed: number): void {
    (this.next.leave ??= []).push(feed);
    this.schedule();
  }

  private forgetFeed(feed: Feed): void {
    if (feed.left && feed.out === 0) this.feeds.delete(feed.number);
  }

  /** What is said in one turn of the loop goes together. */
  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      this.flush();
    });
  }

  /** @internal */
  flush(): void {
    for (const feed of this.ending) feed.tell();
    this.ending.clear();
    const transfer: ArrayBuffer[] = [];
    if (this.filled > 0) {
      const bytes = this.buffer.slice(0, this.filled);
      this.next.bytes = bytes;
      transfer.push(bytes.buffer);
      this.filled = 0;
      if (this.buffer.length > 1 << 20) this.buffer = new Uint8Array(64 << 10);
    }
    if (this.released.length > 0) {
      this.next.released = Float64Array.from(this.released);
      this.released = [];
    }
    this.thread.postMessage(this.next, transfer);
    this.next = {};
  }

  private hear(message: FromLink): void {
    if ('frame' in message) this.frame(message.frame, message.routes, message.at);
    else if ('failed' in message) for (const [number, kind, why] of message.failed) this.fail(number, kind, why);
    else if ('lost' in message) for (const feed of this.feeds.values()) feed.options.lost?.(message.lost);
    else if ('left' in message) this.left(message.left);
    else if ('ended' in message) this.left(message.ended, new Refused(message.code, message.detail));
    else if ('up' in message) {
      this.messageBytesMax = message.up.messageBytesMax;
      this.up = true;
      this.emit('up');
    } else if ('down' in message) {
      this.up = false;
      this.emit('down', message.down);
    } else this.rejected(new Refused(message.rejected.code, message.rejected.detail));
  }

  private frame(frame: Uint8Array, routes: number[], at: number): void {
    let place = 0;
    for (const message of this.decoder.decodeMulti(frame)) {
      const [route, number, frameNumber] = [routes[place], routes[place + 1]!, routes[place + 2]!];
      place += 3;
      if (route === Route.None) continue;
      const [name, , fields] = message as [string, number, any];
      if (route === Route.Jobs) this.jobs(number, frameNumber, fields.jobs, at);
      else this.answer(number, name, fields);
    }
  }

  private jobs(number: number, frame: number, jobs: LeasedJob[], at: number): void {
    const feed = this.feeds.get(number);
    if (!feed) return;
    feed.out += jobs.length;
    jobs.forEach((job, place) => { (job as Known)[ORIGIN] = { feed, frame, place }; });
    feed.options.jobs(jobs, at);
  }

  private left(number: number, why?: MillpondError): void {
    const feed = this.feeds.get(number);
    if (!feed) return;
    feed.goneAway();
    this.forgetFeed(feed);
    if (why) feed.options.ended?.(why);
  }

  private answer(number: number, name: string, fields: any): void {
    const call = this.forget(number);
    if (name === 'refused') call?.reject(new Refused(fields.code, fields.detail ?? '', fields.retry_after_ms));
    else call?.resolve(fields, name);
  }

  private fail(number: number, kind: string, why: string): void {
    const error =
      kind === 'away' ? new Away(why)
      : kind === 'closed' ? new Closed()
      : kind === 'refused' ? new Refused('bad_request', why)
      : new Unknown(why);
    this.forget(number)?.reject(error);
  }

  private end(why: Closed): void {
    this.closed ??= why;
    clearInterval(this.beating);
    for (const number of [...this.calls.keys()]) this.forget(number)?.reject(why);
    for (const feed of this.feeds.values()) {
      feed.goneAway();
      feed.options.ended?.(why);
    }
    this.feeds.clear();
  }
}

/** @internal Who hears what became of an outcome. */
export interface Ending {
  readonly raw: LeasedJob;
  settled(result: Settled): void;
  failed(error: MillpondError): void;
}

class Feed implements Subscription {
  /** Jobs that came and were not released. */
  out = 0;
  left = false;
  goneAway!: () => void;
  private readonly gone = new Promise<void>((resolve) => {
    this.goneAway = () => {
      this.left = true;
      resolve();
    };
  });
  private outcomes: object[] = [];
  private endings: Ending[] = [];

  constructor(private readonly stream: Stream, readonly number: number, readonly options: SubscribeOptions) {}

  grant(count: number): void {
    this.stream.grant(this.number, count);
  }

  leave(): Promise<void> {
    if (!this.left) this.stream.leave(this.number);
    return this.gone;
  }

  settle(said: WireOutcome, ending: Ending): void {
    const { queue, id, lease_token } = ending.raw;
    const { outcome, result } = said;
    // Most end like this; copying what others say takes three times as long.
    const plain = outcome === 'done' && said.push === undefined;
    this.outcomes.push(plain ? { queue, id, lease_token, outcome, result } : { ...said, queue, id, lease_token });
    this.endings.push(ending);
    if (this.outcomes.length >= OUTCOMES_MAX) this.tell();
  }

  /** Sends the outcomes of this moment. */
  tell(): void {
    if (this.outcomes.length === 0) return;
    const { outcomes, endings } = this;
    [this.outcomes, this.endings] = [[], []];
    const { worker, durability } = this.options;
    const resolve = ({ results = [] }: { results?: Settled[] }) =>
      endings.forEach((ending, place) => {
        const result = results[place] ?? {};
        if (result.code === undefined || OVER.has(result.code)) this.stream.release(ending.raw);
        try {
          ending.settled(result);
        } catch (error) {
          // A listener's: the others of this message are heard all the same.
          process.nextTick(() => { throw error; });
        }
      });
    const reject = (error: MillpondError) => endings.forEach((ending) => ending.failed(error));
    this.stream.ask('outcomes', { outcomes, worker, durability }, { repeat: true, patient: true }, { resolve, reject });
  }
}
