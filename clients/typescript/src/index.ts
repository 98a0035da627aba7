export { Client, type ClientOptions } from "./client.js";
export * from "./errors.js";
export { Feedback } from "./feedback.js";
export { DEFAULT_TIMEOUTS, type Timeouts } from "./retries.js";
export { TokenStream } from "./stream.js";
export * from "./types.js";
