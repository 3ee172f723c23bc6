/* The encoder, layer by layer, for a few tiles at a time whose rows stay in the cache.

   Compiled once for each kind of numbers (NUMBERS and ATTENTION name their headers). Fused into the products are what
   precedes and follows them; an expert is computed for the tokens that chose it, and for no others. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "encoder.h"
#include NUMBERS
#include ATTENTION
#include "team.h"

#define MOST_EXPERTS 16
#define LINE 64        /* bytes */
#define SPARE_ROWS 16  /* behind the last: see numbers_amx.h */

/* What a thread keeps for itself. */
typedef struct {
    AttentionSpace attention;
    int32_t *chosen[MOST_EXPERTS]; /* rows that chose an expert */
    float *gate[MOST_EXPERTS];     /* and with which weight */
    int32_t count[MOST_EXPERTS];
    element *gathered; /* [rows][element_width]: those rows themselves */
} Own;

struct Session {
    const Encoder *encoder;
    int chunk; /* tiles at a time */
    Team team;
    void *memory;
    long element_width, hidden_width, hidden_elements, qkv_width;
    float *x;            /* [rows][width]: the residual stream */
    element *normal;     /* [rows][element_width]: normalised; later what attention found */
    element *qkv;        /* [rows][qkv_width] */
    float *mix;          /* [rows][hidden_width]: experts, weighted and added up */
    element *gated;      /* [rows][hidden_elements]: that times V */
    float *logits;       /* [rows][16] */
    float *patch;        /* [rows][patch values] */
    atomic_int *routed;  /* [chunk][depth][most_experts]: rows that chose the expert */
    Own **own;           /* of each thread */
    /* Of the run under way. */
    const uint16_t *dn;
    const float *metadata;
    int tiles;
    Outputs outputs;
};

/* What an epilogue needs. */
struct Stage {
    Session *session;
    const Product *product;
    const int32_t *index;
    const float *gate;
};

/* Epilogues. */

INLINE vec biased(const Stage *stage, const float *block, int column) {
    return _mm512_add_ps(_mm512_load_ps(block), _mm512_loadu_ps(stage->product->bias + column));
}

INLINE void keep_qkv(const Stage *stage, int first, int count, int column, int columns, const float *block, long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++)
        for (int c = 0; c < columns; c += LANES)
            store_whole(s->qkv + (first + i) * s->qkv_width + column + c, biased(stage, block + i * stride + c, column + c));
}

INLINE void add_to_x(const Stage *stage, int first, int count, int column, int columns, const float *block, long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++)
        for (int c = 0; c < columns; c += LANES) {
            float *x = s->x + (long)(first + i) * s->encoder->width + column + c;
            _mm512_storeu_ps(x, _mm512_add_ps(_mm512_loadu_ps(x), biased(stage, block + i * stride + c, column + c)));
        }
}

/* Row `first` of the patches is another row of x: the tokens before them lie between. */
INLINE void place_patches(const Stage *stage, int first, int count, int column, int columns, const float *block, long stride) {
    Session *s = stage->session;
    const Encoder *e = s->encoder;
    int patches = e->tokens - e->extra;
    for (int i = 0; i < count; i++) {
        int tile = (first + i) / patches, token = (first + i) % patches + e->extra;
        for (int c = 0; c < columns; c += LANES)
            _mm512_storeu_ps(s->x + ((long)tile * e->tokens + token) * e->width + column + c,
                             _mm512_add_ps(_mm512_load_ps(block + i * stride + c),
                                           _mm512_loadu_ps(e->placed + (long)token * e->width + column + c)));
    }
}

INLINE void add_expert(const Stage *stage, int first, int count, int column, int columns, const float *block, long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++) {
        vec gate = _mm512_set1_ps(stage->gate[first + i]);
        float *mix = s->mix + stage->index[first + i] * s->hidden_width + column;
        for (int c = 0; c < columns; c += LANES) {
            vec active = activated(biased(stage, block + i * stride + c, column + c));
            _mm512_storeu_ps(mix + c, _mm512_fmadd_ps(gate, active, _mm512_loadu_ps(mix + c)));
        }
    }
}

INLINE void times_mix(const Stage *stage, int first, int count, int column, int columns, const float *block, long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++)
        for (int c = 0; c < columns; c += LANES) {
            vec mix = _mm512_loadu_ps(s->mix + (first + i) * s->hidden_width + column + c);
            vec value = _mm512_mul_ps(mix, biased(stage, block + i * stride + c, column + c));
            store_whole(s->gated + (first + i) * s->hidden_elements + column + c, value);
        }
    /* Inputs of the next product end at a multiple of INPUTS_MULTIPLE; there, another layer may have left numbers. */
    int end = column + columns;
    if (end == stage->product->outputs && end % INPUTS_MULTIPLE >= LANES)
        for (int i = 0; i < count; i++)
            store_whole(s->gated + (first + i) * s->hidden_elements + end, _mm512_setzero_ps());
}

/* Steps of a layer, for rows `from` to `to`. */

/* (x - mean) / sqrt(variance + epsilon) of four rows at a time; the padding stays zero. Also the logits of a gate of
   `experts`, a constant where this is inlined, and in fp32 whatever the elements. */
INLINE void normalise_rows(Session *s, int from, int to, float epsilon, const Gate *gate, int experts) {
    const Encoder *e = s->encoder;
    int width = e->width;
    __mmask16 last = lanes_before(width - LANES, e->dim);
    __m128 share = _mm_set1_ps(1.0f / e->dim);
    for (int first = from; first < to; first += 4) {
        int row[4];
        const float *x[4];
        vec sum[4], mean[4], scale[4], logit[MOST_EXPERTS][4];
        for (int i = 0; i < 4; i++) {
            row[i] = first + i < to ? first + i : to - 1; /* what is missing repeats the last one */
            x[i] = s->x + (long)row[i] * width;
            sum[i] = _mm512_setzero_ps();
        }
        for (int c = 0; c < width; c += LANES)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[i] = _mm512_add_ps(sum[i], _mm512_loadu_ps(x[i] + c));
        spread(_mm_mul_ps(sums_of(sum), share), mean);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum[i] = _mm512_setzero_ps();
        for (int c = 0; c < width; c += LANES) {
            __mmask16 lanes = c + LANES < width ? 0xFFFF : last;
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                vec difference = _mm512_maskz_sub_ps(lanes, _mm512_loadu_ps(x[i] + c), mean[i]);
                sum[i] = _mm512_fmadd_ps(difference, difference, sum[i]);
            }
        }
        __m128 variance = _mm_add_ps(_mm_mul_ps(sums_of(sum), share), _mm_set1_ps(epsilon));
        spread(_mm_div_ps(_mm_set1_ps(1.0f), _mm_sqrt_ps(variance)), scale);
#pragma GCC unroll 5
        for (int k = 0; k < experts; k++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) logit[k][i] = _mm512_setzero_ps();
        for (int c = 0; c < width; c += LANES) {
            __mmask16 lanes = c + LANES < width ? 0xFFFF : last;
            vec normal[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                vec difference = _mm512_maskz_sub_ps(lanes, _mm512_loadu_ps(x[i] + c), mean[i]);
                normal[i] = _mm512_mul_ps(difference, scale[i]);
                store_whole(s->normal + row[i] * s->element_width + c, normal[i]);
            }
#pragma GCC unroll 5
            for (int k = 0; k < experts; k++) {
                vec weight = _mm512_loadu_ps(gate->weight + k * width + c);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) logit[k][i] = _mm512_fmadd_ps(normal[i], weight, logit[k][i]);
            }
        }
#pragma GCC unroll 5
        for (int k = 0; k < experts; k++) {
            float four[4];
            _mm_storeu_ps(four, _mm_add_ps(sums_of(logit[k]), _mm_set1_ps(gate->bias[k])));
            for (int i = 0; i < 4; i++) s->logits[row[i] * LANES + k] = four[i];
        }
    }
}

static void normalise(Session *s, int from, int to, float epsilon, const Gate *gate) {
    switch (gate ? gate->experts : 0) {
    case 0: normalise_rows(s, from, to, epsilon, gate, 0); break;
    case 3: normalise_rows(s, from, to, epsilon, gate, 3); break;
    case 4: normalise_rows(s, from, to, epsilon, gate, 4); break;
    case 5: normalise_rows(s, from, to, epsilon, gate, 5); break;
    default: normalise_rows(s, from, to, epsilon, gate, gate->experts);
    }
}

/* Which experts a row's gate chooses, the largest logits (of equal ones the first), and their softmax. Sixteen rows
   at a time, side by side in the lanes. */
static void choose(Session *s, Own *own, int layer, int from, int to) {
    const Encoder *e = s->encoder;
    int experts = e->layers[layer].gate.experts, most = e->most_experts;
    memset(own->count, 0, sizeof own->count);
    for (int row = from; row < to; row += LANES) {
        __mmask16 rows = lanes_before(row, to), taken[MOST_EXPERTS] = {0};
        vec logits[LANES], weights[MOST_EXPERTS], largest = _mm512_setzero_ps(), total = _mm512_setzero_ps();
        for (int i = 0; i < LANES; i++) logits[i] = _mm512_loadu_ps(s->logits + (row + i) * LANES);
        transpose(logits);
        for (int k = 0; k < e->top_k; k++) {
            vec best = _mm512_set1_ps(-INFINITY);
            __mmask16 found[MOST_EXPERTS];
            for (int i = 0; i < experts; i++) {
                __mmask16 better = _mm512_cmp_ps_mask(logits[i], best, _CMP_GT_OQ) & ~taken[i];
                best = _mm512_mask_mov_ps(best, better, logits[i]);
                found[i] = better;
                for (int j = 0; j < i; j++) found[j] &= ~better;
            }
            if (k == 0) largest = best;
            vec lowered = _mm512_max_ps(_mm512_sub_ps(best, largest), _mm512_set1_ps(-LARGEST_EXPONENT));
            vec weight = bounded_exponential(lowered);
            total = _mm512_add_ps(total, weight);
            for (int i = 0; i < experts; i++) {
                taken[i] |= found[i];
                weights[i] = k ? _mm512_mask_mov_ps(weights[i], found[i], weight) : weight;
            }
        }
        __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32(row), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        for (int i = 0; i < experts; i++) {
            __mmask16 chosen = taken[i] & rows;
            int count = own->count[i];
            _mm512_storeu_si512(own->chosen[i] + count, _mm512_maskz_compress_epi32(chosen, numbers));
            _mm512_storeu_ps(own->gate[i] + count, _mm512_maskz_compress_ps(chosen, _mm512_div_ps(weights[i], total)));
            own->count[i] = count + __builtin_popcount(chosen);
        }
    }
    for (int i = 0; i < experts; i++) /* rows of a tile follow one another */
        for (int n = 0, next; n < own->count[i]; n = next) {
            int tile = own->chosen[i][n] / e->tokens;
            for (next = n + 1; next < own->count[i] && own->chosen[i][next] / e->tokens == tile;) next++;
            atomic_fetch_add(&s->routed[((long)tile * e->depth + layer) * most + i], next - n);
        }
}

/* The rows that chose an expert, one behind the other. */
static Rows gather_rows(Session *s, Own *own, int expert) {
    long width = s->element_width;
    for (int n = 0; n < own->count[expert]; n++)
        memcpy(own->gathered + n * width, s->normal + own->chosen[expert][n] * width, width * sizeof(element));
    return (Rows){own->gathered, width, NULL};
}

static void mix_experts(Session *s, Own *own, int number, int from, int to) {
    const Layer *layer = &s->encoder->layers[number];
    choose(s, own, number, from, to);
    memset(s->mix + (long)from * s->hidden_width, 0, (long)(to - from) * s->hidden_width * sizeof(float));
    for (int i = 0; i < layer->gate.experts; i++) {
        Rows chosen = {s->normal, s->element_width, own->chosen[i]};
        if (!READS_BY_INDEX) chosen = gather_rows(s, own, i);
        product(&chosen, 0, own->count[i], &layer->expert[i], add_expert,
                &(Stage){s, &layer->expert[i], own->chosen[i], own->gate[i]});
    }
    product(&(Rows){s->normal, s->element_width, NULL}, from, to, &layer->values, times_mix, &(Stage){s, &layer->values, NULL, NULL});
    product(&(Rows){s->gated, s->hidden_elements, NULL}, from, to, &layer->down, add_to_x,
            &(Stage){s, &layer->down, NULL, NULL});
}

/* Items are a group's sixteen queries; thread `part` takes its share of them, those of a group together. */
static void attend_part(Session *s, Own *own, int bounded, int part, int tiles) {
    const Encoder *e = s->encoder;
    int heads = e->heads / e->groups, pieces = rounded_up(e->tokens, LANES) / LANES;
    int items = tiles * e->groups * pieces, threads = s->team.barrier.threads;
    int end = items * (part + 1) / threads;
    for (int item = items * part / threads, next; item < end; item = next) {
        int place = item / pieces, tile = place / e->groups, group = place % e->groups;
        next = (place + 1) * pieces < end ? (place + 1) * pieces : end;
        attend(&own->attention, e, bounded, s->qkv + (long)tile * e->tokens * s->qkv_width + group * (heads + 2) * e->head_dim,
               s->qkv_width, item % pieces * LANES, (next - place * pieces) * LANES,
               s->normal + (long)tile * e->tokens * s->element_width + group * heads * e->head_dim, s->element_width);
    }
}

/* Before and behind the layers. */

/* A row of a patch without the band's mean. */
INLINE void centre(const uint16_t *dn, int count, float mean, float *out) {
    int i = 0;
    for (; i + 4 <= count; i += 4) {
        __m128i whole = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(dn + i)));
        _mm_storeu_ps(out + i, _mm_sub_ps(_mm_cvtepi32_ps(whole), _mm_set1_ps(mean)));
    }
    for (; i < count; i++) out[i] = dn[i] - mean;
}

static void embed(Session *s, int start, int from, int to) {
    const Encoder *e = s->encoder;
    int grid = e->side / e->patch, patches = e->tokens - e->extra, values = e->patches.inputs;
    int area = e->side * e->side;
    /* Tokens before the patches: constants, and what the metadata add. */
    for (int row = from; row < to; row++) {
        int token = row % e->tokens, tile = start + row / e->tokens;
        if (token >= e->extra) continue;
        for (int c = 0; c < e->width; c += LANES) {
            vec x = _mm512_loadu_ps(e->placed + (long)token * e->width + c);
            for (int i = 0; i < 8; i++)
                x = _mm512_fmadd_ps(_mm512_set1_ps(s->metadata[tile * 8 + i]),
                                    _mm512_loadu_ps(e->metadata + ((long)i * e->extra + token) * e->width + c), x);
            _mm512_storeu_ps(s->x + (long)row * e->width + c, x);
        }
    }
    /* Patches are counted without these tokens. */
#define PATCHES_BEFORE(row) ((row) / e->tokens * patches + ((row) % e->tokens > e->extra ? (row) % e->tokens - e->extra : 0))
    int first = PATCHES_BEFORE(from), end = PATCHES_BEFORE(to);
    for (int n = first; n < end; n++) {
        const uint16_t *dn = s->dn + (long)(start + n / patches) * e->channels * area;
        const uint16_t *corner = dn + n % patches / grid * e->patch * e->side + n % grid * e->patch;
        float *patch = s->patch + (long)n * values;
        for (int c = 0; c < e->channels; c++)
            for (int y = 0; y < e->patch; y++, patch += e->patch)
                centre(corner + c * area + y * e->side, e->patch, e->mean[c], patch);
    }
    product_fp32(&(RowsFp32){s->patch, values, NULL}, first, end, &e->patches, place_patches,
                 &(Stage){s, &e->patches, NULL, NULL});
}

/* The mean of rows `from` to `to` of a tile, and with `std` their deviation (of the population). */
static void pool(const Encoder *e, const float *x, int from, int to, float *mean, float *std) {
    vec share = _mm512_set1_ps(1.0f / (to - from));
    for (int c = 0; c < e->dim; c += LANES) {
        __mmask16 lanes = lanes_before(c, e->dim);
        vec sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (int n = from; n < to; n++) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + (long)n * e->width + c));
        sum = _mm512_mul_ps(sum, share);
        if (mean) _mm512_mask_storeu_ps(mean + c, lanes, sum);
        if (!std) continue;
        for (int n = from; n < to; n++) {
            vec difference = _mm512_sub_ps(_mm512_loadu_ps(x + (long)n * e->width + c), sum);
            squares = _mm512_fmadd_ps(difference, difference, squares);
        }
        _mm512_mask_storeu_ps(std + c, lanes, _mm512_sqrt_ps(_mm512_mul_ps(squares, share)));
    }
}

static void give(Session *s, int start, int tiles) {
    const Encoder *e = s->encoder;
    Outputs out = s->outputs;
    for (long i = 0; i < tiles; i++) {
        const float *x = s->x + i * e->tokens * e->width;
        long n = start + i;
        if (out.mean) pool(e, x, 0, e->tokens, out.mean + n * e->dim, NULL);
        if (out.patch_mean) pool(e, x, e->extra, e->tokens, out.patch_mean + n * e->dim, NULL);
        if (out.patch_mean_std) {
            float *at = out.patch_mean_std + n * 2 * e->dim;
            pool(e, x, e->extra, e->tokens, at, at + e->dim);
        }
        if (out.cls) memcpy(out.cls + n * e->dim, x + (e->extra - 1) * e->width, e->dim * sizeof(float));
        if (out.tokens)
            for (int t = 0; t < e->tokens; t++)
                memcpy(out.tokens + (n * e->tokens + t) * e->dim, x + (long)t * e->width, e->dim * sizeof(float));
        long counts = (long)e->depth * e->most_experts;
        if (out.routing)
            for (long j = 0; j < counts; j++)
                out.routing[n * counts + j] = (float)s->routed[i * counts + j] / (float)(e->top_k * e->tokens);
    }
}

/* The whole of a run, as thread `part` sees it. Rows are shared out in whole blocks of a product. */
static void work(void *of, int part) {
    Session *s = of;
    const Encoder *e = s->encoder;
    int threads = s->team.barrier.threads;
    begin_numbers();
    for (int start = 0; start < s->tiles; start += s->chunk) {
        int tiles = s->tiles - start < s->chunk ? s->tiles - start : s->chunk, rows = tiles * e->tokens;
        int blocks = (rows + ROWS - 1) / ROWS;
        int from = blocks * part / threads * ROWS, to = blocks * (part + 1) / threads * ROWS;
        if (to > rows) to = rows;
        Own *own = s->own[part];
        if (part == 0)
            for (long i = 0; i < (long)tiles * e->depth * e->most_experts; i++) s->routed[i] = 0;
        embed(s, start, from, to);
        wait_for_all(&s->team.barrier); /* patches and rows of x are shared out differently */
        for (int i = 0; i < e->depth; i++) {
            const Layer *layer = &e->layers[i];
            normalise(s, from, to, layer->epsilon[0], NULL);
            product(&(Rows){s->normal, s->element_width, NULL}, from, to, &layer->qkv, keep_qkv,
                    &(Stage){s, &layer->qkv, NULL, NULL});
            wait_for_all(&s->team.barrier);
            attend_part(s, own, layer->bounded, part, tiles);
            wait_for_all(&s->team.barrier);
            product(&(Rows){s->normal, s->element_width, NULL}, from, to, &layer->out, add_to_x,
                    &(Stage){s, &layer->out, NULL, NULL});
            normalise(s, from, to, layer->epsilon[1], &layer->gate);
            mix_experts(s, own, i, from, to);
        }
        wait_for_all(&s->team.barrier);
        if (part == 0) give(s, start, tiles);
        wait_for_all(&s->team.barrier);
    }
    end_numbers();
}

/* What the library offers, to CPUs that support.c finds able. */

#define EXPORTED __attribute__((visibility("default")))

/* Pieces of one allocation, each at the start of a cache line. */
static void *piece(char **at, long bytes) {
    void *here = *at;
    *at += rounded_up(bytes, LINE) + LINE; /* and a line that vectors may reach into */
    return here;
}

static long lay_out(Session *s, int threads, char *at) {
    char *start = at;
    const Encoder *e = s->encoder;
    long rows = (long)s->chunk * e->tokens;
    s->x = piece(&at, rows * e->width * sizeof(float));
    s->normal = piece(&at, (rows + SPARE_ROWS) * s->element_width * sizeof(element));
    s->qkv = piece(&at, (rows + 1) * s->qkv_width * sizeof(element)); /* vectors reach behind a row's end */
    s->mix = piece(&at, rows * s->hidden_width * sizeof(float));
    s->gated = piece(&at, (rows + SPARE_ROWS) * s->hidden_elements * sizeof(element));
    s->logits = piece(&at, (rows + LANES) * LANES * sizeof(float));
    s->patch = piece(&at, rows * e->patches.inputs * sizeof(float));
    s->routed = piece(&at, (long)s->chunk * e->depth * e->most_experts * sizeof(atomic_int));
    s->own = piece(&at, threads * sizeof(Own *));
    for (int i = 0; i < threads; i++) {
        Own *own = piece(&at, sizeof(Own));
        element *gathered = READS_BY_INDEX ? NULL : piece(&at, (rows + SPARE_ROWS) * s->element_width * sizeof(element));
        if (start) s->own[i] = own, own->gathered = gathered;
        for (int n = 0; n < e->most_experts; n++) {
            int32_t *chosen = piece(&at, (rows + LANES) * sizeof(int32_t));
            float *gate = piece(&at, (rows + LANES) * sizeof(float));
            if (start) own->chosen[n] = chosen, own->gate[n] = gate;
        }
    }
    return at - start;
}

/* Ends the session's threads. No run may be under way. */
EXPORTED void NAME(landmoe_close)(Session *s) {
    if (!s) return;
    end_team(&s->team);
    free(s->memory);
    free(s);
}

/* A session for one run at a time, in `threads` threads, `chunk` tiles at once. `encoder` has to outlive it.
   NULL where the encoder is larger than the kernels allow, or memory or threads cannot be had. */
EXPORTED Session *NAME(landmoe_open)(const Encoder *encoder, int chunk, int threads) {
    if (encoder->head_dim > MOST_DIM || encoder->head_dim % HEAD_MULTIPLE || encoder->tokens > MOST_TOKENS ||
        encoder->heads / encoder->groups > MOST_HEADS || encoder->most_experts > MOST_EXPERTS)
        return NULL;
    Session *s = calloc(1, sizeof(Session));
    if (!s) return NULL;
    *s = (Session){.encoder = encoder, .chunk = chunk, .qkv_width = encoder->layers[0].qkv.outputs};
    s->element_width = rounded_up(encoder->width, INPUTS_MULTIPLE);
    for (int i = 0; i < encoder->depth; i++) {
        const Layer *layer = &encoder->layers[i];
        if (layer->hidden > s->hidden_width) s->hidden_width = layer->hidden;
    }
    s->hidden_elements = rounded_up(s->hidden_width, INPUTS_MULTIPLE);
    long bytes = lay_out(s, threads, NULL);
    int ready = begin_team(&s->team, threads, work, s);
    s->memory = aligned_alloc(LINE, rounded_up(bytes, LINE));
    if (!ready || !s->memory) {
        NAME(landmoe_close)(s);
        return NULL;
    }
    memset(s->memory, 0, bytes); /* the padding of rows stays so */
    lay_out(s, threads, s->memory);
    return s;
}

/* Embeds tiles: dn [tiles][channels][side][side], metadata [tiles][4][2]. */
EXPORTED void NAME(landmoe_run)(Session *s, const uint16_t *dn, const float *metadata, int tiles, const Outputs *outputs) {
    s->dn = dn, s->metadata = metadata, s->tiles = tiles, s->outputs = *outputs;
    work_together(&s->team);
}
