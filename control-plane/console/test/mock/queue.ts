// A stream that the mock pushes into and a client reads from.

export class Queue<T> {
  private readonly items: T[] = [];
  private wake: () => void = () => undefined;
  private closed = false;
  private error: Error | undefined;

  push(item: T): void {
    this.items.push(item);
    this.wake();
  }

  close(): void {
    this.closed = true;
    this.wake();
  }

  /** Ends the stream with an error. */
  fail(error: Error): void {
    this.error = error;
    this.close();
  }

  async *read(signal: AbortSignal): AsyncGenerator<T> {
    signal.addEventListener("abort", () => this.close(), { once: true });
    while (true) {
      while (this.items.length > 0) yield this.items.shift()!;
      if (this.error) throw this.error;
      if (this.closed) return;
      await new Promise<void>((done) => (this.wake = done));
    }
  }
}
