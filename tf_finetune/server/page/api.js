// Requests to the server: JSON, pages of lists, uploads with progress, streamed answers.

import { askKey, hasKey, header } from "./key.js";

const BASE = "/v1";

// A request that the server refused, or could not be reached for (status 0).
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const unreachable = () => new ApiError(0, "The server does not answer.");

function refused(status, text) {
  let message = `The server answers with the status ${status}.`;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // No JSON: a proxy's page, perhaps.
  }
  return new ApiError(status, message);
}

// Sends a request; where the server wants a key, asks for it and sends it again.
async function send(path, options = {}) {
  for (;;) {
    const sent = header();
    let response;
    try {
      response = await fetch(BASE + path, { ...options, headers: { ...options.headers, ...sent } });
    } catch (error) {
      throw error.name === "AbortError" ? error : unreachable();
    }
    if (response.ok) return response;
    const error = refused(response.status, await response.text());
    if (response.status !== 401) throw error;
    if (header().Authorization !== sent.Authorization) continue; // Another one was given meanwhile.
    if (!(await askKey(hasKey() ? "The server does not know this key." : ""))) throw error;
  }
}

export const get = async (path) => (await send(path)).json();
export const remove = async (path) => (await send(path, { method: "DELETE" })).json();

function posted(body, signal) {
  const headers = { "Content-Type": "application/json" };
  return { method: "POST", headers, body: body && JSON.stringify(body), signal };
}

export const post = async (path, body) => (await send(path, posted(body))).json();

// Returns the objects of a list, newest first, page by page, up to one that is known already.
export async function listed(path, known = () => false) {
  const found = [];
  for (let after = ""; ;) {
    const page = await get(`${path}${path.includes("?") ? "&" : "?"}limit=100${after}`);
    for (const item of page.data) {
      if (known(item.id)) return found;
      found.push(item);
    }
    if (!page.has_more) return found;
    after = `&after=${encodeURIComponent(page.last_id)}`;
  }
}

// Uploads a file; `told` is called with the share that was sent. fetch cannot tell it.
export async function upload(file, told, signal) {
  for (;;) {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("purpose", "fine-tune");
    form.append("file", file);
    const sent = await new Promise((resolve, reject) => {
      request.open("POST", `${BASE}/files`);
      for (const [name, value] of Object.entries(header())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
      request.onload = resolve;
      request.onerror = () => reject(unreachable());
      request.onabort = () => reject(new DOMException("Stopped.", "AbortError"));
      signal.addEventListener("abort", () => request.abort());
      request.send(form);
    }).then(() => request);
    if (sent.status === 200) return JSON.parse(sent.responseText);
    const error = refused(sent.status, sent.responseText);
    if (sent.status !== 401 || !(await askKey())) throw error;
  }
}

// Yields the chunks of a streamed answer: server-sent events over fetch.
export async function* streamed(path, body, signal) {
  const response = await send(path, posted({ ...body, stream: true }, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : unreachable();
    }
    if (part.done) throw new ApiError(0, "The answer ends before its end.");
    const events = (text + part.value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(500, chunk.error.message);
      yield chunk;
    }
  }
}
