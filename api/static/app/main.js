// Starts what the page has: every module looks for its own elements and does nothing without them.
import { startLive } from "./live.js";
import { startKeys } from "./keys.js";
import { startForms } from "./forms.js";
import { startLog } from "./log.js";
import { startPosters } from "./posters.js";

startLive();
startKeys();
startForms();
startLog();
startPosters();
