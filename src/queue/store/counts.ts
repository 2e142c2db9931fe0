/** The state of a job. */
export type JobState = 'waiting' | 'delayed' | 'active' | 'completed' | 'failed'

/** Number of jobs in each state. */
export type Counts = Record<JobState, number>
