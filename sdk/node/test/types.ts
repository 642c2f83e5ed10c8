// Compiled, never run: what the types promise.
import { connect, Fail, type Job } from '@millpond/client';

interface Email {
  to: string;
}

export async function example(): Promise<void> {
  const pond = await connect('millpond://127.0.0.1:7077', { token: 't', maxBlocked: '2m' });
  const emails = pond.queue<Email, { sent: string }>('emails', { backoff: { fixed: '5s' } });
  await emails.push({ to: 'ada' }, { delay: '5m', idempotencyKey: 'welcome-ada', priority: 'high' });
  // @ts-expect-error a body of another kind
  await emails.push({ too: 'ada' });
  // @ts-expect-error no span
  await emails.push({ to: 'ada' }, { delay: '5 minutes' });
  // @ts-expect-error no option
  await emails.push({ to: 'ada' }, { dealy: 5 });
  const worker = emails.worker(async (job) => {
    if (!job.body.to) throw new Fail('no address');
    const sent: string = await job.step('send', () => job.body.to);
    return { sent };
  }, { concurrency: 64 });
  // @ts-expect-error a result of another kind
  emails.worker(async () => ({ sent: 1 }));
  worker.on('failed', (job: Job, error, state: string) => console.log(job.id, error, state));
  pond.worker({ emails: (job) => job.id, images: async (job) => job.body }, { concurrency: 2 });
  const result: { sent: string } | undefined = await emails.result('id');
  console.log(result, (await emails.job('id'))?.body?.to);
  await pond.close();
}
