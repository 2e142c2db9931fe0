import { checkSoloflight } from './soloflight.js'

checkSoloflight('node')
