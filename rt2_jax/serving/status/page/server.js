// Asks the server. The token stays in this tab and goes out as a header only.

const KEY = "rt2-token";
const PATIENCE_MS = 5000;

export class Refused extends Error {} // the token is missing or wrong
export class Lost extends Error {} // no answer at all

export const token = () => sessionStorage.getItem(KEY);

export function keepToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

export async function ask(path, options = {}, patience = PATIENCE_MS) {
  const headers = { ...options.headers };
  if (token()) headers.Authorization = `Bearer ${token()}`;
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers,
      cache: "no-store",
      signal: AbortSignal.timeout(patience),
    });
  } catch (error) {
    throw new Lost(error.name === "TimeoutError" ? "it does not answer" : "it cannot be reached");
  }
  if (response.status === 401 || response.status === 403) throw new Refused();
  return response;
}

export async function json(path) {
  const response = await ask(path);
  if (!response.ok) throw new Lost(`it answered ${response.status}`);
  return response.json();
}

export const framePath = (session, view, frame) =>
  `status/frames/${session}/${encodeURIComponent(view)}?n=${frame}`;
