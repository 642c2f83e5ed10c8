import http from 'node:http';
import https from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { Away, Refused } from './errors.js';

/** The server closes a connection that was idle for 10 s. */
const IDLE_MS = 8_000;
/** The server starts, stops, or has too much to do; it may say that it does not know what became of a call. */
const UNAVAILABLE = 503;
const PAUSE_MS = 100;
const PAUSE_MS_MAX = 1_000;

export interface PondOptions {
  /** A token of the server, if it has any; without it `MILLPOND_TOKEN`. */
  token?: string;
  /** How long a call waits for a server that is away, in ms. Default 10,000. */
  patience?: number;
}

export interface CallOptions {
  /** The body: JSON text, or what becomes it. */
  body?: unknown;
  /** Ends the call. */
  signal?: AbortSignal;
  /** Ends the waiting for a server that is away, but not a call that is under way. */
  giveUp?: AbortSignal;
  /** What was said once already under this key is not done twice. */
  key?: string;
}

/** One server, over HTTP: calls that are repeated while it is away, and a stream. */
export class Pond {
  /** What tells this pond from others of the process. */
  readonly name: string;
  private readonly base: URL;
  private readonly agent: http.Agent;
  private readonly headers: Record<string, string>;
  private readonly patience: number;

  constructor(url: string, options: PondOptions = {}) {
    const base = new URL(url.replace(/^millpond:/, 'http:').replace(/^millpond\+tls:/, 'https:'));
    if (base.protocol !== 'http:' && base.protocol !== 'https:') {
      throw new TypeError(`millpond(${JSON.stringify(url)}): the address begins with millpond://, millpond+tls://, http:// or https://`);
    }
    if (!base.port && url.startsWith('millpond')) base.port = '7077';
    this.base = base;
    this.name = base.host;
    const agent = { keepAlive: true, timeout: IDLE_MS };
    this.agent = base.protocol === 'https:' ? new https.Agent(agent) : new http.Agent(agent);
    const token = options.token ?? process.env['MILLPOND_TOKEN'];
    this.headers = token ? { authorization: `Bearer ${token}` } : {};
    this.patience = options.patience ?? 10_000;
  }

  /** A call, and its answer. */
  async call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    const headers = { ...this.headers };
    const text = options.body === undefined ? undefined
      : typeof options.body === 'string' ? options.body : JSON.stringify(options.body);
    if (text !== undefined) headers['content-type'] = 'application/json';
    if (options.key) headers['idempotency-key'] = options.key;
    const until = performance.now() + this.patience;
    for (let pause = PAUSE_MS; ; pause = Math.min(2 * pause, PAUSE_MS_MAX)) {
      try {
        return await this.ask<T>(method, path, headers, text, options.signal);
      } catch (error) {
        if (error instanceof Refused && error.status !== UNAVAILABLE) throw error;
        options.signal?.throwIfAborted();
        if (options.giveUp?.aborted || performance.now() + pause > until) throw error instanceof Refused ? error : new Away(error);
        await sleep(pause * (0.5 + Math.random() / 2), undefined, { signal: options.signal ?? options.giveUp }).catch(() => {});
      }
    }
  }

  /** Something to look at; nothing if there is no such job or queue. */
  async look<T>(path: string): Promise<T | undefined> {
    try {
      return await this.call<T>('GET', path);
    } catch (error) {
      if (error instanceof Refused && (error.code === 'unknown_job' || error.code === 'unknown_queue')) return undefined;
      throw error;
    }
  }

  private async ask<T>(method: string, path: string, headers: http.OutgoingHttpHeaders, body: string | undefined, signal?: AbortSignal): Promise<T> {
    const answer = await this.open(method, path, headers, body, signal);
    const pieces: Buffer[] = [];
    for await (const piece of answer) pieces.push(piece as Buffer);
    const text = Buffer.concat(pieces).toString();
    if (answer.statusCode! < 300) return (text ? JSON.parse(text) : undefined) as T;
    throw refusal(answer.statusCode!, text);
  }

  /** The answer as it comes: for streams. */
  open(method: string, path: string, headers: http.OutgoingHttpHeaders = {}, body?: string, signal?: AbortSignal): Promise<http.IncomingMessage> {
    return new Promise((resolve, reject) => {
      const request = (this.base.protocol === 'https:' ? https : http).request(
        new URL(path, this.base),
        { method, headers: { ...this.headers, ...headers }, agent: this.agent, signal },
        resolve,
      );
      request.on('error', reject);
      request.end(body);
    });
  }

  /** A stream of lines, for as long as the server sends it. */
  async *lines(path: string, headers: http.OutgoingHttpHeaders, signal: AbortSignal): AsyncGenerator<string> {
    const answer = await this.open('GET', path, headers, undefined, signal);
    if (answer.statusCode !== 200) {
      let text = '';
      for await (const piece of answer) text += piece;
      throw refusal(answer.statusCode!, text);
    }
    let rest = '';
    answer.setEncoding('utf8');
    for await (const piece of answer) {
      const lines = (rest + piece).split('\n');
      rest = lines.pop()!;
      yield* lines;
    }
  }
}

function refusal(status: number, text: string): Refused {
  try {
    const { code, detail } = JSON.parse(text) as { code: string; detail: string };
    return new Refused(status, code, detail);
  } catch {
    return new Refused(status, 'bad_answer', text.slice(0, 200));
  }
}
