/** A lease under the token that BullMQ gave it. */
interface Lease {
  token: string;
  lease: number;
}

const ponds = new Map<string, Map<string, Lease>>();

/**
 * The leases of this process, under BullMQ's tokens: a job may be taken through one object and finished through another.
 * A token of another process is not known here.
 */
export class Leases {
  private readonly held: Map<string, Lease>;

  constructor(pond: string, private readonly queue: string) {
    this.held = ponds.get(pond) ?? new Map();
    ponds.set(pond, this.held);
  }

  take(id: string, token: string, lease: number): void {
    this.held.set(this.key(id), { token, lease });
  }

  /** The number of the lease, if the token is the right one. */
  of(id: string, token: string): number | undefined {
    const held = this.held.get(this.key(id));
    return held?.token === token ? held.lease : undefined;
  }

  /** The number of the lease, whoever asks. */
  any(id: string): number | undefined {
    return this.held.get(this.key(id))?.lease;
  }

  drop(id: string, lease: number): void {
    if (this.any(id) === lease) this.held.delete(this.key(id));
  }

  private key(id: string): string {
    return `${this.queue}\n${id}`;
  }
}
