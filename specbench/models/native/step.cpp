// A forward of a Llama-shaped model over a few tokens, in one call.
//
// A step reads every weight once. Two things slow it: arithmetic that does not keep up with memory,
// and threads that are woken for every product. Here the threads are woken once a step and meet at
// spinning barriers; weights lie in panels of consecutive outputs, [panel][in][outputs of a panel],
// so that each thread streams one contiguous range and a row of the input multiplies whole vectors.
//
// Activations and sums are float32, weights and cache float32 or bfloat16. Each output is summed
// over its inputs one after the other, each attention over its slots likewise, whatever the number
// of rows: a token's numbers do not depend on what else is in the forward. Scores of slots that a
// token does not see weigh exactly zero, so the same holds for the branch of a tree.
//
// Shapes: N rows of new tokens, C channels, H query heads, G key-value heads, D head width,
// F feed-forward width, S cache slots, W slots of a mask. Vector extensions of GCC and clang.

#include <vector>

#include "attention.h"
#include "products.h"

extern "C" {

struct Layer {
    Linear qkv, output, gate_up, down;
    const float *attention_norm, *feed_forward_norm, *head_norm, *head_bias;
    double head_epsilon;
    int64_t window;
};

struct Model {
    int64_t half, layers, channels, heads, groups, width, inner, vocabulary;  // half: bfloat16
    double epsilon;
    const Layer* layer;
    const float *final_norm, *cos, *sin;
    const void* embedding;
    Linear head;
};

struct Step {
    int64_t rows, tokens, last, first_layer, end_layer, threads, slots;
    int64_t kept;  // last tokens of a row that a tapped state has
    const int64_t *ids, *lengths, *padding;
    const void* features;
    int64_t mask_width, mask_stride;  // stride between rows of a batch, 0 where they share
    const int64_t* offsets;
    const uint8_t *ancestors, *skip;
    void *keys, *values;  // [layer][row][group][slot][D]
    void* const* taps;    // one a layer, the last for the normed state
    void* logits;
};
}

namespace {

inline void norm(const float* x, const float* weight, int64_t width, double epsilon, float* out) {
    Vec squares = {};
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) squares += vector(x + i) * vector(x + i);
    for (; i < width; i++) rest += x[i] * x[i];
    const float scale = float(1 / std::sqrt(double(total(squares) + rest) / double(width) + epsilon));
    for (i = 0; i < width; i++) out[i] = x[i] * scale * weight[i];
}

inline void layer_norm(const float* x, const float* weight, const float* bias, int64_t width, double epsilon, float* out) {
    double mean = 0, square = 0;
    for (int64_t i = 0; i < width; i++) mean += x[i];
    mean /= double(width);
    for (int64_t i = 0; i < width; i++) square += (x[i] - mean) * (x[i] - mean);
    const double scale = 1 / std::sqrt(square / double(width) + epsilon);
    for (int64_t i = 0; i < width; i++) out[i] = float((x[i] - mean) * scale) * weight[i] + bias[i];
}

template <class T> struct Forward {
    const Model& m;
    const Step& s;
    int64_t count, wide, inner, block;
    float *x, *qkv, *mixed, *hidden, *own;
    int64_t own_size;
    Barrier barrier;

    Forward(const Model& model, const Step& step) : m(model), s(step) {
        count = s.rows * s.tokens;
        wide = (m.heads + 2 * m.groups) * m.width;
        inner = up(m.inner, PANEL);
        block = up(s.slots, LANES);
        own_size = up(count * m.channels + SCORED * block + LANES * m.width, 32);
        const int64_t parts[] = {count * m.channels, count * wide, count * m.heads * m.width, count * inner, own_size * s.threads};
        float** places[] = {&x, &qkv, &mixed, &hidden, &own};
        int64_t size = 0;
        for (int64_t part : parts) size += up(part, 32);
        static thread_local std::vector<float> memory;
        if (int64_t(memory.size()) < size + 32) memory.assign(size_t(size + 32), 0.0f);
        float* at = memory.data() + (32 - (reinterpret_cast<uintptr_t>(memory.data()) / 4) % 32) % 32;
        for (int i = 0; i < 5; i++) *places[i] = at, at += up(parts[i], 32);
    }

    static void enter(void* self, int id, int n) { static_cast<Forward*>(self)->run(id, n); }

    void share(int64_t total, int id, int n, int64_t& from, int64_t& end) { from = total * id / n, end = total * (id + 1) / n; }

    T* cached(void* store, int64_t layer, int64_t row, int64_t group) {
        return static_cast<T*>(store) + ((layer * s.rows + row) * m.groups + group) * s.slots * m.width;
    }

    int64_t position(int64_t row, int64_t token) {  // of a new token
        if (!s.offsets) return s.lengths[row] + token;
        const int64_t *offsets = s.offsets + (s.mask_stride ? row * s.mask_width : 0), before = s.mask_width - s.tokens;
        return s.lengths[row] + offsets[before + token] - before;
    }

    void tap(int64_t layer, const float* from, bool normed, int id, int n) {
        if (!s.taps || !s.taps[layer]) return;
        const int64_t kept = s.kept;
        int64_t first, end;
        share(s.rows * kept, id, n, first, end);
        float* buffer = own + id * own_size;
        for (int64_t i = first; i < end; i++) {
            const float* row = from + ((i / kept + 1) * s.tokens - kept + i % kept) * m.channels;
            if (normed) norm(row, m.final_norm, m.channels, m.epsilon, buffer), row = buffer;
            T* out = static_cast<T*>(s.taps[layer]) + i * m.channels;
            for (int64_t c = 0; c < m.channels; c++) narrow(row[c], out + c);
        }
    }

    void rotate(const Layer& layer, int64_t index, int id, int n) {
        const int64_t parts = m.heads + 2 * m.groups, half = m.width / 2;
        float* turned = own + id * own_size;
        int64_t first, end;
        share(count * parts, id, n, first, end);
        for (int64_t i = first; i < end; i++) {
            const int64_t n_row = i / parts, part = i % parts, row = n_row / s.tokens, token = n_row % s.tokens;
            float* from = qkv + n_row * wide + part * m.width;
            const int64_t slot = s.lengths[row] + token, group = part - m.heads;
            if (group >= m.groups) {
                T* to = cached(s.values, index, row, group - m.groups) + slot * m.width;
                for (int64_t d = 0; d < m.width; d++) narrow(from[d], to + d);
                continue;
            }
            if (layer.head_bias) layer_norm(from, layer.head_norm + part * m.width, layer.head_bias + part * m.width, m.width, layer.head_epsilon, from);
            else if (layer.head_norm) norm(from, layer.head_norm + part * m.width, m.width, layer.head_epsilon, from);
            const float *cos = m.cos + position(row, token) * m.width, *sin = m.sin + position(row, token) * m.width;
            for (int64_t d = 0; d < half; d++) turned[d] = from[d] * cos[d] + from[d + half] * sin[d];
            for (int64_t d = half; d < m.width; d++) turned[d] = from[d] * cos[d] + from[d - half] * sin[d];
            if (group < 0) {
                std::memcpy(from, turned, size_t(m.width) * 4);
            } else {
                T* to = cached(s.keys, index, row, group) + slot * m.width;
                for (int64_t d = 0; d < m.width; d++) narrow(turned[d], to + d);
            }
        }
    }

    void hide(float* scores, const Layer& layer, int64_t row, int64_t token, int64_t limit) {
        const float never = -INFINITY;
        const int64_t length = s.lengths[row], end = up(limit, LANES);
        const int64_t base = s.ancestors ? length + s.tokens - s.mask_width : length + token + 1;
        const uint8_t* seen = s.ancestors ? s.ancestors + row * s.mask_stride + token * s.mask_width : nullptr;
        for (int64_t i = std::max<int64_t>(base, 0); i < end; i++)
            if (!seen || i - base >= s.mask_width || !seen[i - base]) scores[i] = never;
        if (s.padding)
            for (int64_t i = 0; i < s.padding[row]; i++) scores[i] = never;
        if (!layer.window) return;
        const int64_t now = position(row, token);
        const int64_t* offsets = s.offsets ? s.offsets + (s.mask_stride ? row * s.mask_width : 0) : nullptr;
        for (int64_t i = 0; i < limit; i++)
            if (now - (offsets && i >= base ? base + offsets[i - base] : i) >= layer.window) scores[i] = never;
    }

    void attend(const Layer& layer, int64_t index, int id, int n) {
        const int64_t shared = m.heads / m.groups, each = s.tokens * shared;
        float* scores = own + id * own_size;
        float* copy = scores + SCORED * block;
        const float scale = float(1 / std::sqrt(double(m.width)));
        int64_t first, end;
        share(count * m.heads, id, n, first, end);
        while (first < end) {
            const int64_t place = first / each, row = place / m.groups, group = place % m.groups, within = first % each;
            const int64_t take = std::min<int64_t>({SCORED, each - within, end - first});
            const int64_t latest = (within + take - 1) / shared;
            const int64_t limit = s.lengths[row] + (s.ancestors ? s.tokens : latest + 1);
            const T* keys = cached(s.keys, index, row, group);
            const float* query[SCORED];
            float* out[SCORED];
            for (int64_t r = 0; r < take; r++) {
                const int64_t token = (within + r) / shared, head = group * shared + (within + r) % shared;
                query[r] = qkv + (row * s.tokens + token) * wide + head * m.width;
                out[r] = mixed + ((row * s.tokens + token) * m.heads + head) * m.width;
            }
            for (int64_t slot = 0; slot < limit; slot += LANES) {
                const int64_t full = std::min<int64_t>(LANES, limit - slot) * m.width;
                const float* block_keys = copy;
                if (sizeof(T) == 4 && full == LANES * m.width) {
                    block_keys = reinterpret_cast<const float*>(keys + slot * m.width);
                } else {
                    for (int64_t d = 0; d < full; d += LANES) store(copy + d, vector(keys + slot * m.width + d));
                    for (int64_t d = full; d < LANES * m.width; d++) copy[d] = 0;
                }
                for (int64_t r = 0; r < take; r++)
                    store(scores + r * block + slot, products<LANES>(query[r], block_keys, m.width) * scale);
            }
            const int64_t last = up(limit, LANES);
            for (int64_t r = 0; r < take; r++) {
                float* mine = scores + r * block;
                hide(mine, layer, row, (within + r) / shared, limit);
                const float most = greatest(mine, last);
                for (int64_t i = 0; i < last; i += LANES) store(mine + i, exponential(vector(mine + i) - most));
            }
            for (int64_t r = 0; r < take; r += QUERIES)
                weigh_rows<QUERIES>(std::min<int64_t>(QUERIES, take - r), scores + r * block, block, limit,
                                    cached(s.values, index, row, group), m.width, out + r);
            first += take;
        }
    }

    void run(int id, int n) {
        float* normed = own + id * own_size;
        int64_t first, end;
        share(count, id, n, first, end);
        for (int64_t i = first; i < end; i++) {
            const T* from = s.ids ? static_cast<const T*>(m.embedding) + s.ids[i] * m.channels : static_cast<const T*>(s.features) + i * m.channels;
            for (int64_t c = 0; c < m.channels; c++) x[i * m.channels + c] = widen(from[c]);
        }
        const auto add = [&](int64_t row, int64_t start, int64_t size, const float* sums) {
            for (int64_t o = 0; o < size; o++) x[row * m.channels + start + o] += sums[o];
        };
        barrier.meet(n);
        for (int64_t index = s.first_layer; index < s.end_layer; index++) {
            const Layer& layer = m.layer[index];
            const int skip = s.skip ? s.skip[index] : 0;
            if (!(skip & 1)) {
                for (int64_t i = 0; i < count; i++) norm(x + i * m.channels, layer.attention_norm, m.channels, m.epsilon, normed + i * m.channels);
                multiply<T>(layer.qkv, normed, m.channels, count, id, n, [&](int64_t row, int64_t start, int64_t size, const float* sums) {
                    std::memcpy(qkv + row * wide + start, sums, size_t(size) * 4);
                });
                barrier.meet(n);
                rotate(layer, index, id, n);
                barrier.meet(n);
                attend(layer, index, id, n);
                barrier.meet(n);
                multiply<T>(layer.output, mixed, m.heads * m.width, count, id, n, add);
                barrier.meet(n);
            }
            if (!(skip & 2)) {
                for (int64_t i = 0; i < count; i++) norm(x + i * m.channels, layer.feed_forward_norm, m.channels, m.epsilon, normed + i * m.channels);
                multiply<T>(layer.gate_up, normed, m.channels, count, id, n, [&](int64_t row, int64_t start, int64_t, const float* sums) {
                    const bool gates = start < m.inner;
                    float* to = hidden + row * inner + (gates ? start : start - m.inner);
                    for (int v = 0; v < PANEL; v += LANES) {
                        const Vec sum = vector(sums + v), gate = vector(to + v);
                        store(to + v, gates ? sum : gate / (1.0f + exponential(-gate)) * sum);
                    }
                });
                barrier.meet(n);
                multiply<T>(layer.down, hidden, inner, count, id, n, add);
                barrier.meet(n);
            }
            tap(index, x, false, id, n);
        }
        tap(m.layers, x, true, id, n);
        if (!s.logits) return;
        const int64_t last = s.last, size = m.head.out;
        for (int64_t i = 0; i < s.rows * last; i++)
            norm(x + ((i / last + 1) * s.tokens - last + i % last) * m.channels, m.final_norm, m.channels, m.epsilon, normed + i * m.channels);
        T* logits = static_cast<T*>(s.logits);
        multiply<T>(m.head, normed, m.channels, s.rows * last, id, n, [&](int64_t row, int64_t start, int64_t take, const float* sums) {
            for (int64_t o = 0; o < take; o++) narrow(sums[o], logits + row * size + start + o);
        });
    }
};

}  // namespace

extern "C" {

void use_threads(Parallel regions, int (*thread)(), int (*threads)()) {
    parallel_regions = regions, region_thread = thread, region_threads = threads;
}

int64_t panel_outputs() { return PANEL; }
int64_t lanes() { return LANES; }

void pack_weight(const Linear* linear, int64_t half, const void* rows, void* to) {
    if (half) pack(*linear, static_cast<const bf16*>(rows), static_cast<bf16*>(to));
    else pack(*linear, static_cast<const float*>(rows), static_cast<float*>(to));
}

// Returns whether all ids have an embedding; else nothing was computed.
int forward(const Model* model, const Step* step) {
    for (int64_t i = 0; step->ids && i < step->rows * step->tokens; i++)
        if (step->ids[i] < 0 || step->ids[i] >= model->vocabulary) return 0;
    if (model->half) {
        Forward<bf16> work(*model, *step);
        together(Forward<bf16>::enter, &work, step->threads);
    } else {
        Forward<float> work(*model, *step);
        together(Forward<float>::enter, &work, step->threads);
    }
    return 1;
}

void project(const Linear* linear, int64_t half, int64_t rows, int64_t threads, const void* x, const void* residual, void* out) {
    std::vector<float> wide(size_t(rows * linear->in));
    if (half) {
        Product<bf16> work{*linear, static_cast<const bf16*>(x), static_cast<const bf16*>(residual), static_cast<bf16*>(out), rows, wide.data(), {}};
        together(Product<bf16>::enter, &work, threads);
    } else {
        Product<float> work{*linear, static_cast<const float*>(x), static_cast<const float*>(residual), static_cast<float*>(out), rows, wide.data(), {}};
        together(Product<float>::enter, &work, threads);
    }
}
}
