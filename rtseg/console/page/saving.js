// Saves a frame with its masks on this computer. The token goes in a header, never in an address.

/**
 * @param {{name: string, token: string, format: "png" | "coco"}} what
 * @returns {Promise<string>} the name of the file
 */
export async function saveSnapshot({ name, token, format }) {
  const address = `api/feeds/${encodeURIComponent(name)}/snapshot?format=${format}&masks=1`;
  const answer = await fetch(address, {
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    cache: "no-store",
    credentials: "omit",
  });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({ error: "" }));
    throw new Error(error || `the console answered ${answer.status}`);
  }
  const stamp = new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-");
  const file = `${name}-${stamp}.${format === "png" ? "png" : "json"}`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return file;
}
