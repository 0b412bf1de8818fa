"""All faults of docs/reliability.md's table, by its sections."""

import of_data
import of_files
import of_runs
import of_starts

SECTIONS = {
    "The directory of a run": [*of_runs.RUNS, *of_starts.DIRECTORY],
    "TFRecords": of_data.RECORDS,
    "Photos": [*of_data.PHOTOS, *of_data.PREDICTED],
    "Numbers and memory": of_starts.MACHINE,
    "Flags": of_starts.TYPED,
    "Files of others, exported files": [*of_starts.WEIGHTS, *of_files.FILES, *of_files.READERS],
    "Buckets": of_starts.BUCKETS,
}
FAULTS = [fault for faults in SECTIONS.values() for fault in faults]
