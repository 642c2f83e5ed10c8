interface Waiting<In, Out> {
  item: In;
  resolve: (out: Out) => void;
  reject: (error: unknown) => void;
}

/** An item that `run` could not do, among others that it could. */
export class Failed {
  constructor(readonly error: unknown) {}
}

/**
 * Calls that are made while one is under way go together in the next: fewer round trips, and an order that two sockets
 * would not keep. `run` answers item by item, in order.
 */
export class Batch<In, Out> {
  private waiting: Waiting<In, Out>[] = [];
  private busy = false;

  constructor(
    private readonly run: (items: In[]) => Promise<(Out | Failed)[]>,
    private readonly most: number,
  ) {}

  add(item: In): Promise<Out> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, resolve, reject });
      if (!this.busy) void this.turn();
    });
  }

  private async turn(): Promise<void> {
    this.busy = true;
    while (this.waiting.length > 0) {
      // What the same turn of the loop still has to say comes along.
      await null;
      const taken = this.waiting.splice(0, this.most);
      try {
        const answers = await this.run(taken.map(({ item }) => item));
        taken.forEach(({ resolve, reject }, place) => {
          const answer = answers[place] as Out | Failed;
          if (answer instanceof Failed) reject(answer.error);
          else resolve(answer);
        });
      } catch (error) {
        for (const { reject } of taken) reject(error);
      }
    }
    this.busy = false;
  }
}
