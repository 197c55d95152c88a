/*
 * api_doctor.h - whether this server is set up for pg_weir.
 */
#ifndef WEIR_API_DOCTOR_H
#define WEIR_API_DOCTOR_H

/*
 * For calls that need workers and a slot: 55000 that names everything that is
 * missing, with the commands that mend it; nothing has been done then.
 */
extern void weir_require_ready(void);

#endif							/* WEIR_API_DOCTOR_H */
