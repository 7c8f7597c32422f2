/* Language models of foretrain-edge, for C. Made from engine/edge/capi/src/lib.rs; do not edit. */

#ifndef FORETRAIN_EDGE_H
#define FORETRAIN_EDGE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 Why a text ended, or that it failed.
 */
typedef enum ForetrainStatus {
  /*
   The model said that it is over, or a stop text came.
   */
  FORETRAIN_STATUS_STOP = 0,
  /*
   As many tokens as asked for.
   */
  FORETRAIN_STATUS_LENGTH = 1,
  /*
   The callback returned false.
   */
  FORETRAIN_STATUS_CANCELLED = 2,
  /*
   See `foretrain_last_error`.
   */
  FORETRAIN_STATUS_FAILED = -1,
} ForetrainStatus;

/*
 What a model has read and written last, for going on from. One thread at a time may use it.
 */
typedef struct ForetrainContext ForetrainContext;

/*
 An open language model.
 */
typedef struct ForetrainModel ForetrainModel;

/*
 How to continue a text. `foretrain_default_options` fills it in.
 */
typedef struct ForetrainOptions {
  /*
   Most new tokens.
   */
  size_t max_tokens;
  /*
   0 always takes the likeliest token.
   */
  float temperature;
  /*
   Consider only this many of the likeliest tokens; 0 considers all.
   */
  size_t top_k;
  /*
   Consider only the likeliest tokens that together have this probability; 1 considers all.
   */
  float top_p;
  /*
   Consider only tokens at least this many times as likely as the likeliest; 0 considers all.
   */
  float min_p;
  /*
   Makes the last 64 tokens less likely; 1 changes nothing.
   */
  float repeat_penalty;
  /*
   The same seed gives the same text.
   */
  uint64_t seed;
  /*
   Threads; 0 takes one per core.
   */
  size_t num_threads;
  /*
   Texts that the answer ends before: as many as `num_stops`, in UTF-8. May be null when that is 0.
   */
  const char *const *stops;
  /*
   Number of `stops`.
   */
  size_t num_stops;
} ForetrainOptions;

/*
 Gets a piece of new text: `len` bytes of UTF-8 and a zero behind them, valid during the call. Returns false to end the
 text. It must not unwind or jump out.
 */
typedef bool (*ForetrainOnText)(const char *text, size_t len, void *user_data);

/*
 One message of a conversation.
 */
typedef struct ForetrainMessage {
  /*
   "system", "user" or "assistant".
   */
  const char *role;
  /*
   What was said, in UTF-8.
   */
  const char *content;
} ForetrainMessage;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 What went wrong in this thread's last call that failed; an empty text before any. Valid until its next call that fails.
 */
const char *foretrain_last_error(void);

/*
 The usual options.
 */
struct ForetrainOptions foretrain_default_options(void);

/*
 Opens the language model at `path` (UTF-8): a package's folder or a GGUF file. Null when that fails.

 # Safety
 `path` is null or a text that ends with a zero.
 */
struct ForetrainModel *foretrain_open(const char *path);

/*
 Closes `model`; null is fine.

 # Safety
 `model` is null or came from `foretrain_open`, is not in use and is not used again.
 */
void foretrain_close(struct ForetrainModel *model);

/*
 Longest token sequence of `model`; 0 for null.

 # Safety
 `model` is null or came from `foretrain_open` and is open.
 */
size_t foretrain_max_tokens(const struct ForetrainModel *model);

/*
 The tokens of `text` as a prompt. Writes the first `capacity` of them to `tokens` (which may be null when that is 0) and
 returns how many there are; -1 when that fails.

 # Safety
 `model` is null or open; `text` is null or ends with a zero; `tokens` has room for `capacity` numbers.
 */
int64_t foretrain_tokens(const struct ForetrainModel *model,
                         const char *text,
                         uint32_t *tokens,
                         size_t capacity);

/*
 A context of `model` without text. Null when that fails.

 # Safety
 `model` is null or open, and stays open until the context is freed.
 */
struct ForetrainContext *foretrain_context_new(const struct ForetrainModel *model);

/*
 Frees `context`; null is fine.

 # Safety
 `context` is null or came from `foretrain_context_new`, is not in use and is not used again.
 */
void foretrain_context_free(struct ForetrainContext *context);

/*
 How many tokens of the last prompt `context` held already, so that they were not read again; 0 for null.

 # Safety
 `context` is null or came from `foretrain_context_new`, and no other thread uses it.
 */
size_t foretrain_context_cached_tokens(const struct ForetrainContext *context);

/*
 Continues `prompt` (UTF-8), the whole text, as `foretrain_generate` does. What starts as the context's last text did is
 not read again.

 # Safety
 As for `foretrain_generate`; `context` is null or came from `foretrain_context_new`, and no other thread uses it.
 */
enum ForetrainStatus foretrain_context_generate(struct ForetrainContext *context,
                                                const char *prompt,
                                                const struct ForetrainOptions *options,
                                                ForetrainOnText on_text,
                                                void *user_data);

/*
 Answers a conversation, all of its messages, as `foretrain_chat` does. What starts as the context's last text did is not
 read again: of a conversation that goes on, only what is new.

 # Safety
 As for `foretrain_chat`; `context` is null or came from `foretrain_context_new`, and no other thread uses it.
 */
enum ForetrainStatus foretrain_context_chat(struct ForetrainContext *context,
                                            const struct ForetrainMessage *messages,
                                            size_t num_messages,
                                            const struct ForetrainOptions *options,
                                            ForetrainOnText on_text,
                                            void *user_data);

/*
 Continues `prompt` (UTF-8) and hands out each piece of new text.

 # Safety
 `model` is null or open; `prompt` is null or ends with a zero; `options` is null (for the usual ones) or points to
 options whose `stops` are as many texts as they say; `on_text` may be called with `user_data` on this thread.
 */
enum ForetrainStatus foretrain_generate(const struct ForetrainModel *model,
                                        const char *prompt,
                                        const struct ForetrainOptions *options,
                                        ForetrainOnText on_text,
                                        void *user_data);

/*
 Answers a conversation of `num_messages` messages, by the model's chat template or the plain form, and hands out each
 piece of the answer.

 # Safety
 As for `foretrain_generate`; `messages` are as many as `num_messages` says, with texts that end with a zero.
 */
enum ForetrainStatus foretrain_chat(const struct ForetrainModel *model,
                                    const struct ForetrainMessage *messages,
                                    size_t num_messages,
                                    const struct ForetrainOptions *options,
                                    ForetrainOnText on_text,
                                    void *user_data);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FORETRAIN_EDGE_H */
