import http from 'node:http';
import https from 'node:https';
import { Away, Closed, Refused, Unknown } from './errors.js';

/** The server closes idle connections after 10 s. */
const IDLE_MS = 5_000;
const ANSWER_BYTES_MAX = 256 << 20;

export interface CallOptions {
  /** Sent as JSON. */
  body?: unknown;
  query?: Record<string, string | number | boolean | undefined>;
  /** With it a change may be repeated when its outcome is unknown. */
  idempotencyKey?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The routes of docs/http.md: answers as they come, refusals as `Refused`. */
export class Http {
  private readonly agent: http.Agent;
  private closed = false;

  constructor(private readonly base: string, private readonly token?: string, ca?: string | Buffer) {
    const options = { keepAlive: true, timeout: IDLE_MS };
    this.agent = base.startsWith('https') ? new https.Agent({ ...options, ca }) : new http.Agent(options);
  }

  /** One call, such as `call('GET', '/v1/queues/mail')`. */
  async call<T = any>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    const response = await this.open(method, path, options);
    const parts: Buffer[] = [];
    let size = 0;
    try {
      for await (const part of response) {
        parts.push(part as Buffer);
        if ((size += (part as Buffer).length) > ANSWER_BYTES_MAX) throw new Error('the answer is too large');
      }
    } catch (error) {
      throw lost(method, error as Error, options);
    }
    const text = Buffer.concat(parts).toString();
    const status = response.statusCode ?? 0;
    if (status >= 400) throw refused(status, text);
    return (response.headers['content-type']?.includes('json') ? JSON.parse(text) : text) as T;
  }

  /** As `call`, but undefined for what is not there. */
  async find<T = any>(path: string, options?: CallOptions): Promise<T | undefined> {
    try {
      return await this.call<T>('GET', path, options);
    } catch (error) {
      if (error instanceof Refused && error.status === 404 && error.code !== 'unknown_route') return undefined;
      throw error;
    }
  }

  /**
   * What happens, as it happens, once this has resolved: the events of docs/events.md, with their `type` (`job`, `queue`, `gone`, `end`), until
   * the signal is aborted or the server goes.
   */
  async events<E = { type: string; [field: string]: any }>(query: CallOptions['query'] = {}, signal?: AbortSignal): Promise<AsyncIterable<E>> {
    const response = await this.open('GET', '/v1/events', { query, signal });
    if (response.statusCode !== 200) throw refused(response.statusCode ?? 0, await collect(response));
    return read<E>(response, signal);
  }

  close(): void {
    this.closed = true;
    this.agent.destroy();
  }

  private open(method: string, path: string, options: CallOptions): Promise<http.IncomingMessage> {
    if (this.closed) return Promise.reject(new Closed());
    const { body, query = {}, idempotencyKey, signal } = options;
    const url = new URL(this.base + path);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
    const headers: Record<string, string> = { accept: 'application/json', ...options.headers };
    if (this.token !== undefined) headers['authorization'] = `Bearer ${this.token}`;
    if (idempotencyKey !== undefined) headers['idempotency-key'] = idempotencyKey;
    const text = body === undefined ? undefined : JSON.stringify(body);
    if (text !== undefined) headers['content-type'] = 'application/json';
    const { request } = url.protocol === 'https:' ? https : http;
    return new Promise((resolve, reject) => {
      const call = request(url, { method, headers, agent: this.agent, signal }, resolve);
      call.on('error', (error: NodeJS.ErrnoException) => {
        if (signal?.aborted) reject(signal.reason);
        else reject(lost(method, error, options));
      });
      call.end(text);
    });
  }
}

function lost(method: string, error: NodeJS.ErrnoException, { signal }: CallOptions): unknown {
  if (signal?.aborted) return signal.reason;
  const unseen = error.syscall === 'connect' || error.code === 'ENOTFOUND';
  return unseen || method === 'GET' ? new Away(error.message) : new Unknown(error.message);
}

function refused(status: number, text: string): Refused {
  try {
    const { code, detail, retry_after_ms } = JSON.parse(text);
    return new Refused(code, detail, retry_after_ms, status);
  } catch {
    return new Refused('bad_request', `the server answers ${status}`, undefined, status);
  }
}

async function* read<E>(response: http.IncomingMessage, signal?: AbortSignal): AsyncGenerator<E> {
  let rest = '';
  let type = '';
  try {
    for await (const part of response.setEncoding('utf8')) {
      const lines = (rest + part).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        if (line.startsWith('event:')) type = line.slice(6).trim();
        else if (line.startsWith('data:')) yield { type, ...JSON.parse(line.slice(5)) };
      }
    }
  } catch (error) {
    if (!signal?.aborted) throw new Away((error as Error).message);
  }
}

async function collect(response: http.IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part;
  return text;
}
