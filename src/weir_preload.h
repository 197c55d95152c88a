/*
 * weir_preload.h - what is to be done when the library is not preloaded.
 */
#ifndef WEIR_PRELOAD_H
#define WEIR_PRELOAD_H

/* The ALTER SYSTEM command that adds pg_weir to what is preloaded now. Allocated in the current context. */
extern char *weir_preload_command(void);
/* A sentence with the present setting; without the value for users who may not see it. */
extern char *weir_preload_detail(void);

#endif							/* WEIR_PRELOAD_H */
