// Small pictures of frames that this page has seen: of the newest, and of those that a memory was made from.

const WIDTH = 128;
const NEWEST = 96; // the feed itself holds 64 frames; a memory bank is asked for a little later

/** @typedef {{seq: number, session: string, image: HTMLCanvasElement}} Thumbnail */

export class Thumbnails {
  constructor() {
    this.wanted = false; // drawn only while somebody looks at the memory banks
    /** @type {Map<number, Thumbnail>} */
    this.newest = new Map();
    /** @type {Map<number, Thumbnail>} */
    this.kept = new Map();
    this.session = "";
  }

  /**
   * A picture that was painted.
   * @param {{seq: number, session: string, width: number, height: number}} header
   * @param {CanvasImageSource} image
   */
  offer({ seq, session, width, height }, image) {
    if (!this.wanted) return;
    if (session !== this.session) {
      this.newest.clear();
      this.kept.clear();
      this.session = session;
    }
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: WIDTH, height: Math.max(1, Math.round((WIDTH * height) / width)) });
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    this.newest.set(seq, { seq, session, image: canvas });
    for (const old of this.newest.keys()) {
      if (this.newest.size <= NEWEST) break;
      this.newest.delete(old);
    }
  }

  /**
   * Keeps the thumbnails of these frames, and forgets those that were kept for others.
   * @param {Iterable<number>} seqs
   */
  keep(seqs) {
    /** @type {Map<number, Thumbnail>} */
    const kept = new Map();
    for (const seq of seqs) {
      const found = this.kept.get(seq) ?? this.#near(seq);
      if (found) kept.set(seq, found);
    }
    this.kept = kept;
  }

  /**
   * The thumbnail of a frame, or of one that was shown within two frames of it; null if this page saw none.
   * @param {number} seq
   */
  of(seq) {
    return this.kept.get(seq) ?? this.#near(seq) ?? null;
  }

  /** @param {number} seq */
  #near(seq) {
    for (const off of [0, -1, 1, -2, 2]) {
      const found = this.newest.get(seq + off);
      if (found) return found;
    }
    return undefined;
  }
}
