import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Batch, Failed } from './batch.js';
import { Refused } from './errors.js';
import type { Pond } from './pond.js';

const PUSH_MAX = 1_000;
const PUSHED_MAX = 10_000;
const LOOK_MS = 5;

/** What all queues of a pond have in common. */
export class Shared {
  /** Jobs of one add or addBulk, as JSON text: all or none of them are added, and all before those that come later. */
  readonly pushes: Batch<string[], string[]>;
  private readonly retained = new Map<string, string>();
  private readonly metas = new Map<string, Map<string, string>>();
  private reached: Promise<void> | undefined;

  constructor(readonly pond: Pond) {
    this.pushes = new Batch((groups) => this.push(groups), PUSH_MAX);
  }

  /** When the server has answered once. */
  ready(): Promise<void> {
    this.reached ??= this.pond.call<void>('GET', '/').catch((error) => {
      this.reached = undefined;
      throw error;
    });
    return this.reached;
  }

  private async push(groups: string[][]): Promise<(string[] | Failed)[]> {
    const count = groups.reduce((sum, group) => sum + group.length, 0);
    try {
      if (groups.length > 1 && count > PUSHED_MAX) throw new Refused(400, 'too_many', '');
      const body = `{"jobs":[${groups.flat().join(',')}]}`;
      const { jobs } = await this.pond.call<{ jobs: { id: string }[] }>('POST', '/v1/push', { body, key: randomUUID() });
      const ids = jobs.map(({ id }) => id);
      return groups.map((group) => ids.splice(0, group.length));
    } catch (error) {
      // One that is refused is no harm to the others.
      if (!(error instanceof Refused) || groups.length === 1) throw error;
      return this.oneByOne(groups);
    }
  }

  private async oneByOne(groups: string[][]): Promise<(string[] | Failed)[]> {
    const answers: (string[] | Failed)[] = [];
    for (const group of groups) answers.push(await this.push([group]).then(([ids]) => ids!, (error) => new Failed(error)));
    return answers;
  }

  /** Sets how many finished jobs a queue keeps, unless this process did so last. */
  async retain(path: string, setting: string, retention: object): Promise<void> {
    const [key, value] = [`${path} ${setting}`, JSON.stringify(retention)];
    if (this.retained.get(key) === value) return;
    await this.pond.call('PATCH', path, { body: { [setting]: retention } });
    this.retained.set(key, value);
  }

  /** What BullMQ wants to remember of a queue and only reads back. */
  meta(path: string): Map<string, string> {
    const meta = this.metas.get(path) ?? new Map<string, string>();
    this.metas.set(path, meta);
    return meta;
  }

  /** Until it is worth another look. */
  async pause(): Promise<void> {
    await sleep(LOOK_MS);
  }
}
