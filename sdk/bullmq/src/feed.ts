import { setTimeout as sleep } from 'node:timers/promises';
import { stateOf, type JobView, type State } from './job.js';
import { Refused } from './errors.js';
import type { Pond } from './pond.js';

/** An entry as BullMQ reads it: an id, and fields and values by turns. */
export type Entry = [string, string[]];

interface PondEvent {
  queue: string;
  kind: string;
  id?: string;
  from?: State | null;
  to?: State | null;
  cause?: string | null;
  attempt?: number;
  due_at?: string;
  meta?: Record<string, string>;
  result?: unknown;
  error?: { message: string };
  progress?: unknown;
  event_id: string;
}

/** Entries that BullMQ has not read; beyond these the stream is not read either. */
const ENTRIES_MAX = 1_000;
const PAUSE_MS = 1_000;

/** The events of a queue, by BullMQ's names, from the server's stream; after a break they go on where they were. */
export class Feed {
  private readonly entries: Entry[] = [];
  private readonly end = new AbortController();
  private wake: () => void = () => {};
  private room: () => void = () => {};
  private last: string | undefined;
  private readonly opened: Promise<void>;

  constructor(
    private readonly pond: Pond,
    private readonly queue: string,
    after: string | undefined,
    private readonly failed: (error: Error) => void,
  ) {
    // BullMQ's ids of a beginning are `0` and `0-0`.
    this.last = after?.replace(/-\d+$/, '');
    this.opened = new Promise((resolve) => void this.run(resolve));
  }

  /** When nothing that happens from now on is missed. */
  open(): Promise<void> {
    return this.opened;
  }

  /** What happened; waits up to so many ms for something. */
  async read(ms: number): Promise<Entry[]> {
    if (this.entries.length === 0 && !this.end.signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const entries = this.entries.splice(0);
    this.room();
    return entries;
  }

  close(): void {
    this.end.abort();
    this.wake();
    this.room();
  }

  private async run(opened: () => void): Promise<void> {
    const { signal } = this.end;
    while (!signal.aborted) {
      try {
        await this.stream(opened, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused) this.failed(error);
      }
      await sleep(PAUSE_MS * Math.random(), undefined, { signal }).catch(() => {});
    }
  }

  private async stream(opened: () => void, signal: AbortSignal): Promise<void> {
    const query = new URLSearchParams({ queue: this.queue, values: 'true' });
    const headers = this.last === undefined ? {} : { 'last-event-id': this.last };
    let name = '';
    for await (const line of this.pond.lines(`/v1/events?${query}`, headers, signal)) {
      opened();
      if (line.startsWith('event: ')) name = line.slice(7);
      else if (line.startsWith('id: ')) this.last = line.slice(4);
      else if (line.startsWith('data: ')) await this.take(name, JSON.parse(line.slice(6)));
    }
  }

  private async take(name: string, event: PondEvent & { reason?: string }): Promise<void> {
    if (name === 'gone') return this.failed(new Error(`events were missed: ${event.reason}`));
    if (name === 'end') return;
    if (event.kind === 'completed' && event.result === undefined) {
      // Too large for an event.
      event.result = (await this.pond.look<JobView>(`/v1/queues/${this.queue}/jobs/${encodeURIComponent(event.id!)}`))?.result;
    }
    for (const fields of translated(event)) this.entries.push([event.event_id, fields]);
    this.wake();
    if (this.entries.length >= ENTRIES_MAX) await new Promise<void>((resolve) => { this.room = resolve; });
  }
}

/** One of our events is one or two of BullMQ's. */
export function translated(event: PondEvent): string[][] {
  const jobId = event.id ?? '';
  const prev = event.from ? before(event.from) : '';
  const moved = (name: string, ...more: string[]) => ['event', name, 'jobId', jobId, ...more, 'prev', prev];
  const bare = (name: string, ...more: string[]) => ['event', name, 'jobId', jobId, ...more];
  switch (event.kind) {
    case 'added': {
      const name = event.meta?.['name'] ?? '';
      return [bare('added', 'name', name), ...(event.to ? translated({ ...event, kind: event.to }) : [])];
    }
    case 'waiting':
      if (event.cause === 'lease_lost') return [bare('stalled'), moved('waiting')];
      return [event.from ? moved('waiting') : bare('waiting')];
    case 'delayed':
    case 'retrying':
      return [bare('delayed', 'delay', String(Date.parse(event.due_at ?? '') || 0))];
    case 'active':
      return [moved('active')];
    case 'completed':
      return [moved('completed', 'returnvalue', JSON.stringify(event.result ?? null))];
    case 'dead':
    case 'cancelled':
    case 'expired': {
      const reason = event.error?.message ?? event.cause ?? event.kind;
      return [moved('failed', 'failedReason', reason), bare('retries-exhausted', 'attemptsMade', String(event.attempt ?? 0))];
    }
    case 'waiting-children':
    case 'removed':
      return [moved(event.kind)];
    case 'progress':
      return [bare('progress', 'data', JSON.stringify(event.progress ?? null))];
    case 'drained':
    case 'paused':
    case 'resumed':
      return [['event', event.kind]];
    default:
      return [];
  }
}

function before(from: State): string {
  return from === 'waiting' ? 'waiting' : stateOf({ state: from, priority: 0 });
}
