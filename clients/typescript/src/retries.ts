// How long a call may take and when it is tried again. Pure: the clock and the dice are given.
import type { OnlineRLHFError } from "./errors.js";

/** Bounds of one call of the client, retries included. */
export interface Timeouts {
  /** Of a call with all its retries. */
  totalSeconds: number;
  /** Of one attempt of a call that answers at once. */
  attemptSeconds: number;
  firstDelaySeconds: number;
  maxDelaySeconds: number;
}

export const DEFAULT_TIMEOUTS: Timeouts = {
  totalSeconds: 60,
  attemptSeconds: 20,
  firstDelaySeconds: 0.1,
  maxDelaySeconds: 2,
};

/** What is left of one call's time. */
export class Budget {
  readonly #timeouts: Timeouts;
  readonly #nowSeconds: () => number;
  readonly #dice: () => number;
  readonly #endsAt: number;
  #numFailures = 0;

  constructor(
    timeouts: Timeouts,
    totalSeconds: number = timeouts.totalSeconds,
    nowSeconds: () => number = () => performance.now() / 1000,
    dice: () => number = Math.random,
  ) {
    this.#timeouts = timeouts;
    this.#nowSeconds = nowSeconds;
    this.#dice = dice;
    this.#endsAt = nowSeconds() + totalSeconds;
  }

  /** Until the call must have ended. */
  get remainingSeconds(): number {
    return Math.max(this.#endsAt - this.#nowSeconds(), 0.001);
  }

  /** The deadline of the next attempt, as a length of time. */
  get attemptSeconds(): number {
    return Math.min(this.#timeouts.attemptSeconds, this.remainingSeconds);
  }

  /**
   * Seconds to wait before the next attempt: doubled each time, and half of it by chance. Undefined: give up.
   *
   * Where the gateway says how long to wait, that comes on top: not all who were told so come back at once.
   */
  delayAfter(error: OnlineRLHFError): number | undefined {
    if (!error.retryable) {
      return undefined;
    }
    const { firstDelaySeconds, maxDelaySeconds } = this.#timeouts;
    const longest = Math.min(maxDelaySeconds, firstDelaySeconds * 2 ** this.#numFailures);
    const delay = (error.retryAfterSeconds ?? 0) + longest * (0.5 + 0.5 * this.#dice());
    this.#numFailures += 1;
    return delay < this.remainingSeconds ? delay : undefined;
  }
}
