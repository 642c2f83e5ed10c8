// One copy of everything for both kinds of modules, so that `instanceof` holds across them.
export * from './index.js';
