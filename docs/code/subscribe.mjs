// A subscriber in JavaScript: npm install zeromq @msgpack/msgpack. Prints the newest masks, one JSON line each.
// Usage: node subscribe.mjs [ADDRESS] [MESSAGES]
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

const [address = "tcp://127.0.0.1:5555", wanted = "0"] = process.argv.slice(2);

/** The mask of one COCO compressed RLE: Uint8Array of height * width, row by row, 0 or 1. */
function decodeRle(bytes, height, width) {
  const runs = [];
  for (let at = 0; at < bytes.length; ) {
    let value = 0, shift = 0, byte;
    do {
      byte = bytes[at++] - 48;
      value |= (byte & 0x1f) << shift;
      shift += 5;
    } while (byte & 0x20);
    if (byte & 0x10) value |= -1 << shift; // negative
    if (runs.length > 2) value += runs[runs.length - 2]; // later runs are differences
    runs.push(value);
  }
  const mask = new Uint8Array(height * width);
  let pixel = 0; // counted down the columns
  runs.forEach((run, number) => {
    for (const end = pixel + run; pixel < end; pixel++) {
      if (number % 2) mask[(pixel % height) * width + Math.floor(pixel / height)] = 1;
    }
  });
  return mask;
}

function describe([topic, packed, ...payload]) {
  const header = decode(packed);
  const line = { topic: topic.toString(), seq: header.seq, state: header.state };
  if (line.topic.endsWith("/masks")) {
    line.objects = header.objects.map((about, i) => {
      const mask = decodeRle(payload[i], header.height, header.width);
      return { id: about.id, label: about.label, area: mask.reduce((sum, on) => sum + on, 0) };
    });
    line.mask_age_ms = header.mask_age_ms;
  } else if (line.topic.endsWith("/status")) {
    line.masks = decode(payload[0]).state;
  }
  return JSON.stringify(line);
}

const socket = new Subscriber({ receiveHighWaterMark: 2 }); // bounds memory; it keeps the oldest messages
socket.subscribe(); // every topic; socket.subscribe("demo/masks") for one
socket.connect(address);

const newest = new Map(); // the newest message of each topic; older ones are replaced
let shown = 0;
(async () => {
  for await (const parts of socket) newest.set(parts[0].toString(), parts);
})();
setInterval(() => {
  for (const parts of newest.values()) {
    console.log(describe(parts));
    if (++shown === Number(wanted)) process.exit(0);
  }
  newest.clear();
}, 20);
