/* A program as an app would be: opens a model, generates, chats, provokes errors, closes. */
#include <stdio.h>
#include <string.h>

#include "foretrain_edge.h"

static bool show(const char *text, size_t len, void *user_data) {
    size_t *count = user_data;
    *count += 1;
    if (strlen(text) > len) {
        return false;
    }
    fwrite(text, 1, len, stdout);
    return true;
}

static bool refuse(const char *text, size_t len, void *user_data) {
    (void)text;
    (void)len;
    (void)user_data;
    return false;
}

#define EXPECT(condition)                                                                     \
    if (!(condition)) {                                                                       \
        fprintf(stderr, "line %d: %s; %s\n", __LINE__, #condition, foretrain_last_error());   \
        return 1;                                                                             \
    }

int main(int argc, char **argv) {
    EXPECT(argc == 2);
    size_t count = 0;
    EXPECT(strlen(foretrain_last_error()) == 0);
    EXPECT(foretrain_open(NULL) == NULL && strstr(foretrain_last_error(), "null") != NULL);
    EXPECT(foretrain_open("\xff\xfe") == NULL && strstr(foretrain_last_error(), "UTF-8") != NULL);
    EXPECT(foretrain_open("no-such-model.gguf") == NULL && strstr(foretrain_last_error(), "no-such-model") != NULL);
    foretrain_close(NULL);

    struct ForetrainModel *model = foretrain_open(argv[1]);
    EXPECT(model != NULL);
    EXPECT(foretrain_max_tokens(model) == 100 && foretrain_max_tokens(NULL) == 0);
    uint32_t tokens[3] = {0, 0, 0};
    EXPECT(foretrain_tokens(model, "Tell", NULL, 0) == 5);
    EXPECT(foretrain_tokens(model, "Tell", tokens, 2) == 5 && tokens[0] == 256 && tokens[1] == 'T' && tokens[2] == 0);
    EXPECT(foretrain_tokens(NULL, "Tell", NULL, 0) == -1);
    EXPECT(foretrain_tokens(model, "\xc3", NULL, 0) == -1);

    struct ForetrainOptions options = foretrain_default_options();
    options.temperature = 0;
    options.max_tokens = 20;
    options.num_threads = 1;
    EXPECT(foretrain_generate(model, "Tell", &options, show, &count) == FORETRAIN_STATUS_LENGTH);
    EXPECT(count > 0);
    printf("\n---\n");
    const char *stops[] = {"<"};
    options.stops = stops;
    options.num_stops = 1;
    struct ForetrainMessage messages[] = {{"user", "Hi"}};
    EXPECT(foretrain_chat(model, messages, 1, &options, show, &count) != FORETRAIN_STATUS_FAILED);
    EXPECT(foretrain_generate(model, "Tell", NULL, refuse, NULL) == FORETRAIN_STATUS_CANCELLED);

    EXPECT(foretrain_generate(model, NULL, &options, show, &count) == FORETRAIN_STATUS_FAILED);
    EXPECT(foretrain_generate(model, "Tell", &options, NULL, NULL) == FORETRAIN_STATUS_FAILED);
    EXPECT(foretrain_chat(model, NULL, 1, &options, show, &count) == FORETRAIN_STATUS_FAILED);
    options.stops = NULL;
    EXPECT(foretrain_generate(model, "Tell", &options, show, &count) == FORETRAIN_STATUS_FAILED);
    options.num_stops = 0;

    /* A conversation that goes on: what was said before is not read again, and the answer is the same. */
    EXPECT(foretrain_context_new(NULL) == NULL && strstr(foretrain_last_error(), "null") != NULL);
    EXPECT(foretrain_context_cached_tokens(NULL) == 0);
    foretrain_context_free(NULL);
    struct ForetrainContext *context = foretrain_context_new(model);
    EXPECT(context != NULL && foretrain_context_cached_tokens(context) == 0);
    printf("\n---\n");
    EXPECT(foretrain_context_generate(context, "Tell", &options, show, &count) == FORETRAIN_STATUS_LENGTH);
    EXPECT(foretrain_context_cached_tokens(context) == 0);
    printf("\n---\n");
    EXPECT(foretrain_context_generate(context, "Tell me", &options, show, &count) == FORETRAIN_STATUS_LENGTH);
    EXPECT(foretrain_context_cached_tokens(context) == 5);
    printf("\n---\n");
    EXPECT(foretrain_generate(model, "Tell me", &options, show, &count) == FORETRAIN_STATUS_LENGTH);
    printf("\n---\n");
    struct ForetrainMessage longer[] = {{"user", "Hi"}, {"assistant", "Yes"}, {"user", "So"}};
    EXPECT(foretrain_context_chat(context, longer, 1, &options, show, &count) != FORETRAIN_STATUS_FAILED);
    EXPECT(foretrain_context_chat(context, longer, 3, &options, show, &count) != FORETRAIN_STATUS_FAILED);
    EXPECT(foretrain_context_cached_tokens(context) > 5);
    EXPECT(foretrain_context_generate(context, NULL, &options, show, &count) == FORETRAIN_STATUS_FAILED);
    EXPECT(foretrain_context_cached_tokens(context) > 5);
    EXPECT(foretrain_context_chat(NULL, longer, 1, &options, show, &count) == FORETRAIN_STATUS_FAILED);
    EXPECT(foretrain_context_generate(NULL, "Tell", &options, show, &count) == FORETRAIN_STATUS_FAILED);
    foretrain_context_free(context);

    options.top_p = -1;
    EXPECT(foretrain_generate(model, "Tell", &options, show, &count) == FORETRAIN_STATUS_FAILED);
    EXPECT(strstr(foretrain_last_error(), "top_p") != NULL);
    foretrain_close(model);
    return 0;
}
