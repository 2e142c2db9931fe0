/** The state of a job that is there. */
export type JobState = 'waiting' | 'delayed' | 'active' | 'completed' | 'failed'

/** How many jobs are in each state. */
export type Counts = Record<JobState, number>
