/* Threads that work on one tile together. Between two steps they wait for one another, some microseconds at
   most, and spin meanwhile: to sleep and be woken takes longer. */
#pragma once

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "vector_math.h"

#define SPINS 2000 /* some 40 us, then the CPU goes to whoever else wants it */

typedef struct {
    int threads;
    atomic_int arrived, step;
} Barrier;

/* Returns when all threads have come. */
INLINE void wait_for_all(Barrier *barrier) {
    if (barrier->threads == 1) return;
    int step = atomic_load_explicit(&barrier->step, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) == barrier->threads - 1) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->step, step + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&barrier->step, memory_order_acquire) == step; spins++)
        if (spins < SPINS)
            _mm_pause();
        else
            sched_yield();
}

typedef struct Team Team;
typedef struct {
    Team *team;
    int part;
} Member;

struct Team {
    Barrier barrier;
    void (*work)(void *of, int part);
    void *of;
    pthread_mutex_t lock;
    pthread_cond_t called;
    long call; /* rises with each; -1 ends the threads */
    int members;
    pthread_t *thread;
    Member *member;
};

static void *follow(void *argument) {
    Member *member = argument;
    Team *team = member->team;
    for (long last = 0;;) {
        pthread_mutex_lock(&team->lock);
        while (team->call == last) pthread_cond_wait(&team->called, &team->lock);
        last = team->call;
        pthread_mutex_unlock(&team->lock);
        if (last < 0) return NULL;
        team->work(team->of, member->part);
        wait_for_all(&team->barrier);
    }
}

static void end_team(Team *team) {
    pthread_mutex_lock(&team->lock);
    team->call = -1;
    pthread_cond_broadcast(&team->called);
    pthread_mutex_unlock(&team->lock);
    for (int i = 0; i < team->members; i++) pthread_join(team->thread[i], NULL);
    pthread_cond_destroy(&team->called);
    pthread_mutex_destroy(&team->lock);
    free(team->thread);
    free(team->member);
}

/* The calling thread is one of `threads`. Returns 0 when there is no room for them. */
static int begin_team(Team *team, int threads, void (*work)(void *, int), void *of) {
    *team = (Team){.barrier = {.threads = threads}, .work = work, .of = of};
    team->thread = calloc(threads, sizeof(pthread_t));
    team->member = calloc(threads, sizeof(Member));
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->called, NULL);
    if (!team->thread || !team->member) return 0;
    for (; team->members < threads - 1; team->members++) {
        Member *member = &team->member[team->members];
        *member = (Member){team, team->members + 1};
        if (pthread_create(&team->thread[team->members], NULL, follow, member)) return 0;
    }
    return 1;
}

/* Every thread does its part. */
static void work_together(Team *team) {
    if (team->members) {
        pthread_mutex_lock(&team->lock);
        team->call++;
        pthread_cond_broadcast(&team->called);
        pthread_mutex_unlock(&team->lock);
    }
    team->work(team->of, 0);
    wait_for_all(&team->barrier);
}
