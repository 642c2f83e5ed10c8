import type { BackendFactory, IQueueBackend } from 'bullmq';
import { MillpondBackend, type BackendOptions } from './backend.js';
import { checkWorker } from './options.js';
import { Pond, type PondOptions } from './pond.js';
import { Shared } from './shared.js';

export { Away, Refused, Unsupported } from './errors.js';
export type { PondOptions } from './pond.js';

/**
 * BullMQ on a pond: `setDefaultBackendFactory(millpond('millpond://127.0.0.1:7077'))`, or as the factory of a constructor or of
 * `withBackend`. The `connection` of BullMQ's own options is not looked at.
 */
export function millpond(url: string, options: PondOptions = {}): BackendFactory<IQueueBackend, unknown> {
  const shared = new Shared(new Pond(url, options));
  return ((name: string, opts: BackendOptions, { blocking = false, withBlockingConnection = false } = {}) => {
    if (withBlockingConnection) checkWorker(opts as Record<string, unknown>);
    return new MillpondBackend(shared, name, opts, blocking) as unknown as IQueueBackend;
  }) as BackendFactory<IQueueBackend, unknown>;
}
